# SPDX-License-Identifier: Apache-2.0
"""From a scenario's folder to a puzzle's: read, convert, write, look at the result."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from bugbox.errors import UserError
from bugbox.puzzle.definition import MANIFEST, read
from bugbox.puzzle.folder import MAX_TEXT
from bugbox.puzzle.importer import killercoda
from bugbox.puzzle.importer.convert import Files, convert
from bugbox.puzzle.importer.report import Notes
from bugbox.puzzle.scaffold import drafted
from bugbox.puzzle.yaml_source import written

__all__ = ["FORMATS", "bring_in", "slug"]

#: What a scenario may be written in; the second name is the older one of the same.
FORMATS = ("killercoda", "katacoda")


def bring_in(
    format: str, source: Path, parent: Path, name: str | None = None
) -> tuple[Path, Notes]:
    """Make the puzzle `name` in `parent` of a scenario's folder; return it, and all to know of it.

    UserError, NotFound and DefinitionError say why it cannot be; nothing is left then.
    """
    if format not in FORMATS:
        raise UserError(f"no import of {format!r}", hint=f"there is {', '.join(FORMATS)}")
    notes = Notes()
    scenario = killercoda.read(source, notes)
    name = name or slug(source.resolve().name)
    made = convert(scenario, name, notes)
    with drafted(parent, name) as draft:
        _write(made, draft, notes)
    folder = parent / name
    for problem in read(folder)[1]:
        notes.todo(problem.file.name, problem.message)
    return folder, notes


def slug(text: str) -> str:
    """Make a puzzle's name of any text."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")
    return plain if len(plain) > 1 else f"{plain}-imported".lstrip("-")


def _write(made: Files, folder: Path, notes: Notes) -> None:
    _text(folder / MANIFEST, written(made.manifest))
    for name, text in made.texts.items():
        data = text.encode()[: MAX_TEXT - 1].decode(errors="ignore")
        if data != text:
            notes.lost(name, f"what comes after its first {MAX_TEXT >> 10} KiB")
        _text(folder / name, data + "\n")
    for name, text in made.scripts.items():
        _text(folder / name, text)
        (folder / name).chmod(0o755)
    for name, source in made.copies.items():
        _copy(source, folder / name)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", errors="replace")


def _copy(source: Path, to: Path) -> None:
    """Copy a plain file that was one when it was looked at; a link is not followed."""
    to.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file, to.open("wb") as out:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{source}: not a plain file any more")
        shutil.copyfileobj(file, out)
