# SPDX-License-Identifier: Apache-2.0
"""bugbox list: the catalogue, with what is solved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bugbox.cli.out import complain, document, printable, table
from bugbox.cli.progressfile import solved_puzzles
from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.catalogue import Entry, entries, roots
from bugbox.puzzle.quantity import format_duration

__all__ = ["list"]


def list(*, all: bool = False, json: bool = False) -> int:
    """Show the puzzles there are; solved ones are marked.

    Args:
        all: Also folders that are no valid puzzle, with the reason.
        json: Print one JSON document.
    """
    home = Home()
    solved = solved_puzzles(home)
    found = entries(roots(load(home).puzzles))
    shown = [entry for entry in found if all or entry.puzzle is not None]
    if json:
        document([_as_json(entry, entry.name in solved) for entry in shown])
    else:
        table(
            ["", "NAME", "DIFFICULTY", "TIME", "TITLE"],
            [_cells(entry, entry.name in solved) for entry in shown],
        )
    for folder in load(home).puzzles.split(":"):
        if folder and not Path(folder).expanduser().is_dir():
            complain(f"there is no folder {printable(folder)}, which the setting puzzles names")
    broken = len(found) - len(shown)
    if broken:
        complain(f"{broken} more cannot be read: bugbox list --all, bugbox lint")
    return 0


def _cells(entry: Entry, solved: bool) -> tuple[str, ...]:
    mark = "✓" if solved else ""
    if entry.puzzle is None:
        return mark, entry.name, "-", "-", f"! {entry.error}"
    wishes = entry.puzzle.manifest
    time = format_duration(wishes.estimated_time) if wishes.estimated_time else "-"
    return mark, entry.name, wishes.difficulty or "-", time, wishes.title


def _as_json(entry: Entry, solved: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": entry.name, "folder": str(entry.folder), "solved": solved}
    if entry.puzzle is None:
        return {**told, "error": entry.error}
    wishes = entry.puzzle.manifest
    return {
        **told,
        "title": wishes.title,
        "summary": wishes.summary,
        "difficulty": wishes.difficulty,
        "estimated_time_s": wishes.estimated_time,
        "categories": [*wishes.categories],
        "tags": [*wishes.tags],
    }
