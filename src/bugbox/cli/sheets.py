# SPDX-License-Identifier: Apache-2.0
"""The sheets of a test as one table: a line for each puzzle, a column for each stage."""

from __future__ import annotations

from collections.abc import Sequence

from bugbox.puzzle.matrix import Sheet, Stage

__all__ = ["ending", "table"]

#: How a cell begins; a stage that was never begun has a dot.
_MARKS = {"passed": "", "failed": "!", "skipped": "-", "interrupted": "."}


def table(sheets: Sequence[Sheet]) -> list[str]:
    """Return the table's lines. Seconds: in a stage of all its cases, in total from start to end.

    A stage that failed has a `!`, one that was skipped a `-`, one that was not come to a `.`.
    """
    stages = [stage for stage in Stage if any(stage in sheet.shown() for sheet in sheets)]
    rows = [["puzzle", *map(str, stages), "total", "result"]]
    rows += [_row(sheet, stages) for sheet in sheets]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(_aligned(cell, width, first=n == 0) for n, (cell, width) in _cells(row, widths))
        for row in rows
    ]


def ending(sheets: Sequence[Sheet], *, interrupted: bool, took: str) -> str:
    """Return the last line: how many passed, and how far it came when it was stopped."""
    passed = sum(sheet.passed for sheet in sheets)
    done = [sheet for sheet in sheets if sheet.complete]
    if not interrupted:
        return f"{passed} of {len(sheets)} passed in {took}"
    far = f"{len(done)} of {len(sheets)} tested, {passed} passed"
    return f"interrupted after {took}: {far}, {len(sheets) - len(done)} not done"


def _row(sheet: Sheet, stages: Sequence[Stage]) -> list[str]:
    cells = [_cell(sheet, stage) if stage in sheet.shown() else "" for stage in stages]
    result = "passed" if sheet.passed else "failed" if sheet.failures else ""
    total = f"{sheet.seconds:.0f}" if sheet.seconds else ""
    return [sheet.puzzle, *cells, total, result or ("failed" if sheet.complete else "not done")]


def _cell(sheet: Sheet, stage: Stage) -> str:
    cases = sheet.of(stage)
    seconds = f"{sum(case.seconds for case in cases):.0f}" if cases else ""
    return _MARKS[sheet.status(stage)] + seconds


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[tuple[int, tuple[str, int]]]:
    return list(enumerate(zip(row, widths, strict=True)))


def _aligned(cell: str, width: int, *, first: bool) -> str:
    return cell.ljust(width) if first else cell.rjust(width)
