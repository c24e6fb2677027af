# SPDX-License-Identifier: Apache-2.0
"""bugbox check: is it fixed, and if not, why. Thin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import document, duration, paint, printable

__all__ = ["check", "report_lines", "verdict_status"]

_MARKS = {
    "passed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "yellow"),
    "broken": ("!", "yellow"),
}


def check(id: str | None = None, /, *, no_keeper: bool = False, json: bool = False) -> int:
    """Say whether the puzzle is solved: 0 yes, 1 not yet, 4 undecided.

    Args:
        id: Which session. Without it, the only one there is.
        no_keeper: Do it in this process, without the keeper.
        json: Print one JSON document.
    """
    answer = ask("check", {"id": id}, alone=no_keeper)
    if json:
        document(answer)
    else:
        print("\n".join(report_lines(answer)))
    return verdict_status(answer)


def verdict_status(answer: Mapping[str, Any]) -> int:
    """0 solved, 1 not solved, 4 undecided: no check failed, but one broke or was skipped."""
    return {True: 0, False: 1}.get(answer["solved"], 4)


def report_lines(answer: Mapping[str, Any]) -> list[str]:
    """Write a report for people."""
    lines = []
    for outcome in answer["checks"]:
        mark, style = _MARKS.get(outcome["status"], ("?", "yellow"))
        note = "" if outcome["status"] in ("passed", "failed") else f" ({outcome['status']})"
        if outcome["seconds"]:
            note += paint(f"  {duration(outcome['seconds'])}", "dim")
        lines.append(f"{paint(mark, style)} {printable(outcome['title'])}{note}")
        if outcome["message"]:
            lines.append(f"    {printable(outcome['message'])}")
    passed = sum(outcome["status"] == "passed" for outcome in answer["checks"])
    told = {
        True: paint("Solved.", "green"),
        False: f"Not solved yet: {passed} of {len(answer['checks'])} checks passed.",
    }.get(answer["solved"], "Undecided: a check broke or was skipped. That is not your mistake.")
    return [*lines, told]
