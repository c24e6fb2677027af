# SPDX-License-Identifier: Apache-2.0
"""What a solution is worth, and what of a report a learner is told."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from bugbox.puzzle.check import Outcome, Report
from bugbox.puzzle.definition import Puzzle

__all__ = ["points", "told"]


def points(
    puzzle: Puzzle, *, failed_checks: int, hints: Collection[int], gave_up: bool
) -> int | None:
    """Return what solving it is worth to who took those hints; None: it has no points to give."""
    scoring = puzzle.manifest.scoring
    if not (scoring.points or scoring.first_try_bonus):
        return None
    if gave_up:
        return 0
    cost = sum(puzzle.hints[n - 1].cost for n in hints if 1 <= n <= len(puzzle.hints))
    bonus = 0 if failed_checks else scoring.first_try_bonus
    return max(0, scoring.points + bonus - cost)


def told(puzzle: Puzzle, report: Report) -> Report:
    """Return the report as the puzzle's policy tells it: of several failures, maybe one."""
    if puzzle.manifest.check_policy.show_failures == "all":
        return report
    return replace(report, checks=tuple(_first_alone(report.checks)))


def _first_alone(checks: tuple[Outcome, ...]) -> Iterator[Outcome]:
    failed = False
    for outcome in checks:
        yield replace(outcome, message="", detail="") if failed and _failed(outcome) else outcome
        failed = failed or _failed(outcome)


def _failed(outcome: Outcome) -> bool:
    return outcome.status == "failed"
