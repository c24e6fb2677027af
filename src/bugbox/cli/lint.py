# SPDX-License-Identifier: Apache-2.0
"""bugbox lint: what is wrong in a puzzle's folder, before any machine is started."""

from __future__ import annotations

from pathlib import Path

from bugbox.cli.out import complain, document, paint, say
from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle import catalogue
from bugbox.puzzle.lint import Finding
from bugbox.puzzle.lint import lint as look

__all__ = ["lint"]

_WRONG = 2


def lint(*names: str, all: bool = False, json: bool = False) -> int:
    """Look at puzzles' files; status 2 if any is wrong. Warnings alone are no failure.

    Args:
        names: Names of the catalogue or folders. Without one, the folder you stand in.
        all: The whole catalogue.
        json: Print one JSON document.
    """
    where = catalogue.roots(load(Home()).puzzles)
    known = catalogue.names(where)
    if all:
        folders = [entry.folder for entry in catalogue.entries(where)]
    else:
        folders = [catalogue.locate(name, where, Path.cwd()) for name in names or (None,)]
    found = [finding for folder in folders for finding in look(folder, known)]
    if json:
        document([finding.as_json() for finding in found])
    else:
        for finding in found:
            say(paint(str(finding), "red" if finding.level == "error" else "yellow"))
        complain(_summary(len(folders), found))
    return _WRONG if any(finding.level == "error" for finding in found) else 0


def _summary(count: int, found: list[Finding]) -> str:
    errors = sum(finding.level == "error" for finding in found)
    puzzles = "1 puzzle" if count == 1 else f"{count} puzzles"
    return f"{puzzles}: {_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}"


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
