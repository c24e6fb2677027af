# SPDX-License-Identifier: Apache-2.0
"""bugbox import: a puzzle of a scenario that was written for something else."""

from __future__ import annotations

from pathlib import Path

from bugbox.cli.out import document, paint, printable, say
from bugbox.puzzle.importer.folder import bring_in
from bugbox.puzzle.importer.report import KINDS, Notes

__all__ = ["importing"]


def importing(format: str, path: Path, name: str | None = None, /, *, json: bool = False) -> int:
    """Make a puzzle of a scenario's folder, and tell what does not carry over.

    Args:
        format: What it is written in: killercoda (or katacoda, which is the same).
        path: Its folder, with an index.json. It is only read.
        name: The puzzle's name; made of the folder's where there is none.
        json: Print one JSON document.
    """
    folder, notes = bring_in(format, path, Path.cwd(), name)
    if json:
        told = {
            kind: [{"where": n.where, "message": n.message} for n in notes.found if n.kind == kind]
            for kind in KINDS
        }
        document({"name": folder.name, "folder": str(folder), **told})
        return 0
    say(f"{printable(str(folder))} is there.")
    _tell(notes)
    say()
    say(f"Next: cd {printable(folder.name)}; bugbox lint; bugbox play")
    return 0


def _tell(notes: Notes) -> None:
    for kind, heading in KINDS.items():
        told = [note for note in notes.found if note.kind == kind]
        if told:
            say()
            say(paint(f"{heading}:", "bold"))
        for note in told:
            say(f"  {note.where}: {note.message}")
