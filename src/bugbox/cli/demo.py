# SPDX-License-Identifier: Apache-2.0
"""bugbox play --demo: a puzzle's whole story without a keyboard.

The story, the commands it shows (typed for real), a check that fails and says why, the author's
solution, a check that passes, and the machine is gone. Any step that is not so is a failure.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from bugbox.cli import prepare
from bugbox.cli.ask import ask
from bugbox.cli.capture import capture
from bugbox.cli.check import report_lines
from bugbox.cli.out import complain, document, duration, paint, printable, prose, say
from bugbox.cli.start import begin
from bugbox.errors import UserError
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.script import as_typed

__all__ = ["demo", "description", "shown_commands"]

#: Seconds that a command of the story, and the solution, may take.
_COMMAND_TIMEOUT = 60.0
_SOLVE_TIMEOUT = 300.0


def demo(puzzle: Puzzle, *, cold: bool = False, json: bool = False) -> int:
    """Tell the story and show it on a real machine; 0 when everything went as told."""
    if puzzle.solve is None:
        raise UserError(f"{puzzle.name} has no solve.sh to show")
    began = time.monotonic()
    tell = _Teller(quiet=json)
    prepare.announce(puzzle)
    tell.head(puzzle.title)
    if not puzzle.manifest.variants:
        tell.text(prose(puzzle.description))
    answer = begin({"puzzle": str(puzzle.folder), "cold": cold})
    id = str(answer["id"])
    try:
        steps = _story(puzzle, id, answer, tell)
    finally:
        stopped = ask("stop", {"ids": [id]})
    steps["stopped"] = stopped["stopped"] == [id]
    passed = all(steps[step] for step in ("refused", "ran", "solved", "stopped"))
    seconds = round(time.monotonic() - began, 1)
    if json:
        document({"puzzle": puzzle.name, "passed": passed, "seconds": seconds, **steps})
    tell.head(f"{'The demo went as told' if passed else 'NOT as told'}, {duration(seconds)}")
    return 0 if passed else 1


class _Teller:
    """Prints for people, or nothing."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet

    def head(self, text: str) -> None:
        if not self._quiet:
            say()
            say(paint(printable(text), "bold"))

    def text(self, text: str) -> None:
        if not self._quiet:
            say(text)
            sys.stdout.flush()  # people watch it happen, also through a pipe


def _story(puzzle: Puzzle, id: str, answer: dict[str, Any], tell: _Teller) -> dict[str, Any]:
    """Play it; return what happened in each step."""
    seconds = float(answer.get("timings_ms", {}).get("total", 0)) / 1000
    tell.head(f"The machine: {id}, ready after {duration(seconds)}")
    user = puzzle.manifest.user.name
    text = description(puzzle, id)
    if puzzle.manifest.variants:
        tell.text(prose(text))
    for command in shown_commands(text):
        tell.text(f"{paint(f'{user}$', 'cyan')} {printable(command)}")
        argv = ["/bin/bash", "-lc", command]
        _, output = capture(id, argv, timeout=_COMMAND_TIMEOUT, terminal=True)
        tell.text(printable(output).rstrip("\n"))
    tell.head("Is it fixed?")
    before = ask("check", {"id": id})
    tell.text("\n".join(report_lines(before)))
    told = any(c["status"] == "failed" and c["message"] for c in before["checks"])
    refused = before["solved"] is False and told
    if not refused:
        complain("the untouched machine should have failed a check, with a sentence")
    assert puzzle.solve is not None
    # Whoever looks on has not solved it: it goes down as given up.
    ask("solution", {"id": id, "give_up": True})
    tell.head("The solution")
    tell.text(printable(puzzle.solve.text).rstrip("\n"))
    status, output = capture(id, as_typed(puzzle.solve), timeout=_SOLVE_TIMEOUT, variants=True)
    if output.strip():
        tell.text(printable(output).rstrip("\n"))
    if status != 0:
        complain(f"{puzzle.solve.name} ended with status {status}")
    tell.head("Is it fixed now?")
    after = ask("check", {"id": id})
    tell.text("\n".join(report_lines(after)))
    if after["solved"] is not True:
        complain("the solution should have passed every check")
    return {
        "id": id,
        "timings_ms": answer.get("timings_ms", {}),
        "refused": refused,
        "ran": status == 0,
        "solved": after["solved"] is True,
        "before": before,
        "after": after,
    }


def description(puzzle: Puzzle, id: str) -> str:
    """Return what the learner reads, with the session's variants in it."""
    return str(ask("story", {"id": id})["text"]) if puzzle.manifest.variants else puzzle.description


def shown_commands(markdown: str) -> Iterator[str]:
    """Yield what stands behind `$ ` in the fenced blocks of a description."""
    fenced = False
    for line in markdown.splitlines():
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        elif fenced and line.startswith("$ ") and line[2:].strip():
            yield line[2:].strip()
