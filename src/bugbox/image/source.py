# SPDX-License-Identifier: Apache-2.0
"""Read the recipes that come with bugbox, from `recipes/NAME` beside this module.

A recipe may be another one and more: its folder then holds only what is added.
"""

from __future__ import annotations

import os
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bugbox.errors import NotFound
from bugbox.image.recipe import File, Recipe, parse_packages, parse_units
from bugbox.paths import DATA

__all__ = ["load", "names"]

_RECIPES = DATA / "image" / "recipes"

#: Debian's name for each release a recipe builds on, and the size of its filesystem.
_SUITES = {"debian-12": ("bookworm", 1 << 30), "lab": ("bookworm", 3 << 30)}
#: What a recipe adds to.
_OVER = {"lab": "debian-12"}


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
        added = parse_packages((folder / "packages").read_text())
        return replace(below, name=name, size_bytes=size, packages=(*below.packages, *added))
    return Recipe(
        name=name,
        suite=suite,
        size_bytes=size,
        packages=parse_packages((folder / "packages").read_text()),
        units=parse_units((folder / "units").read_text()),
        files=_files(folder / "files"),
        scripts={path.name: path.read_bytes() for path in sorted(folder.glob("*.sh"))},
    )


def _files(folder: Path) -> dict[str, File]:
    return {
        path.relative_to(folder).as_posix(): File(
            data=path.read_bytes(), executable=os.access(path, os.X_OK)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
