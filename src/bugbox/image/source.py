# SPDX-License-Identifier: Apache-2.0
"""Read the recipes that come with bugbox, from `recipes/NAME` beside this module.

A recipe may be another one and more: its folder then holds only what is added. A file of its own
replaces the other's; a script of its own follows the other's.
"""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bugbox.errors import NotFound
from bugbox.image.recipe import File, Recipe, parse_packages, parse_units
from bugbox.paths import DATA

__all__ = ["load", "names", "with_init"]

_RECIPES = DATA / "image" / "recipes"

#: Debian's name for each release a recipe builds on, and the size of its filesystem.
_SUITES = {
    "debian-12": ("bookworm", 1 << 30),
    "debian-12-tini": ("bookworm", 1 << 30),
    "lab": ("bookworm", 3 << 30),
}
#: What a recipe adds to.
_OVER = {"debian-12-tini": "debian-12", "lab": "debian-12"}


def names() -> list[str]:
    """Return the base images there are recipes for."""
    return sorted(name for name in _SUITES if (_RECIPES / name).is_dir())


def load(name: str) -> Recipe:
    """Return the recipe of the base image `name`."""
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(names())}"
        raise NotFound(f"no base image is called {name!r}", hint=hint)
    folder = _RECIPES / name
    suite, size = _SUITES[name]
    if name in _OVER:
        below = load(_OVER[name])
        return _on_top(replace(below, name=name, size_bytes=size), folder)
    return Recipe(
        name=name,
        suite=suite,
        size_bytes=size,
        packages=parse_packages((folder / "packages").read_text()),
        units=parse_units((folder / "units").read_text()),
        files=_files(folder / "files"),
        scripts=_scripts(folder),
    )


def with_init(name: str, init: str) -> str:
    """Return the base image that is `name` with another process 1; NotFound if there is none."""
    if init == "systemd":
        return name
    wanted = f"{name}-{init}"
    if wanted not in names():
        raise NotFound(f"there is no {name} with {init}", hint=f"there is {', '.join(names())}")
    return wanted


def _on_top(below: Recipe, folder: Path) -> Recipe:
    packages = parse_packages((folder / "packages").read_text())
    scripts = {
        script: below.scripts.get(script, b"") + text for script, text in _scripts(folder).items()
    }
    return replace(
        below,
        packages=(*below.packages, *packages),
        files={**below.files, **_files(folder / "files")},
        scripts={**below.scripts, **scripts},
    )


def _scripts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.sh"))}


def _files(folder: Path) -> dict[str, File]:
    # On the path of every start: walking with pathlib took most of the time of it.
    base, found = str(folder), {}
    for inside, _, names in os.walk(base):
        for name in names:
            path = os.path.join(inside, name)  # noqa: PTH118
            executable = os.access(path, os.X_OK)
            with open(path, "rb") as file:  # noqa: PTH123
                data = file.read()
            found[path[len(base) + 1 :]] = File(data=data, executable=executable)
    return dict(sorted(found.items()))
