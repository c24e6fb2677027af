# SPDX-License-Identifier: Apache-2.0
"""bugbox lint: what is wrong in a puzzle's folder, before any machine is started."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bugbox.cli.out import complain, document, paint, say
from bugbox.cli.outcome import tell
from bugbox.config import load
from bugbox.errors import NotFound
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
    unknown: list[NotFound] = []
    known = catalogue.names(where)
    if all:
        folders = [entry.folder for entry in catalogue.entries(where)]
    else:
        folders = _located(names or (None,), where, unknown)
    found = [finding for folder in folders for finding in look(folder, known)]
    if json:
        document([finding.as_json() for finding in found])
    else:
        for finding in found:
            say(paint(str(finding), "red" if finding.level == "error" else "yellow"))
        complain(_summary(len(folders), found))
    for error in unknown:
        tell(error)
    wrong = unknown or any(finding.level == "error" for finding in found)
    return _WRONG if wrong else 0


def _located(
    names: Sequence[str | None], where: Sequence[Path], unknown: list[NotFound]
) -> list[Path]:
    """Return the folders that are there; note what is not, and go on. One alone is an error."""
    found = []
    for name in names:
        try:
            found.append(catalogue.locate(name, where, Path.cwd()))
        except NotFound as error:
            if len(names) == 1:
                raise
            unknown.append(error)
    return found


def _summary(count: int, found: list[Finding]) -> str:
    errors = sum(finding.level == "error" for finding in found)
    puzzles = "1 puzzle" if count == 1 else f"{count} puzzles"
    return f"{puzzles}: {_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}"


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
