# SPDX-License-Identifier: Apache-2.0
"""`new NAME`: a small puzzle that works as it is, for its author to change.

It is made under another name and renamed at the end: there is never half a folder.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from bugbox.errors import UserError
from bugbox.puzzle.keys import PATTERNS
from bugbox.puzzle.text import one_line

__all__ = ["TEMPLATES", "create", "drafted"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")


#: What one may start from; each is a folder of `template/`. The first is the usual one.
TEMPLATES = ("permission", "disk", "service", "network")


def create(parent: Path, name: str, template: str = TEMPLATES[0]) -> Path:
    """Write the folder `name` in `parent` and return it; UserError when that cannot be."""
    if template not in TEMPLATES:
        hint = f"they are {', '.join(TEMPLATES)}"
        raise UserError(f"there is no template {one_line(template, 80)}", hint=hint)
    with drafted(parent, name) as draft:
        _copy(files("bugbox.puzzle") / "template" / template, draft, name)
    return parent / name


@contextmanager
def drafted(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder that becomes `name` in `parent` at the end, or goes; UserError."""
    if not _NAME.fullmatch(name):
        raise _no_name(name)
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} is already there", hint="choose another name")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
        try:
            yield draft
            draft.chmod(0o755)
            draft.rename(folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"cannot write in {parent}: {error.strerror}") from error


def _copy(source: Traversable, target: Path, name: str) -> None:
    for item in source.iterdir():
        if item.is_dir():
            (target / item.name).mkdir()
            _copy(item, target / item.name, name)
            continue
        written = target / item.name
        written.write_text(item.read_text(encoding="utf-8").replace("@NAME@", name), "utf-8")
        # Not copied from the source: an installer may have lost the run bits.
        written.chmod(0o755 if written.suffix == ".sh" else 0o644)


def _no_name(name: str) -> UserError:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower().rpartition("/")[2]).strip("-")[:63]
    slug = slug if _NAME.fullmatch(slug) else f"{slug}-puzzle".lstrip("-")
    hint = f"such as {slug}"
    words = next(iter(PATTERNS.values()))
    return UserError(f'a puzzle\'s name is {words}; got "{one_line(name, 80)}"', hint=hint)
