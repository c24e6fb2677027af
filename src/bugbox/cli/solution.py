# SPDX-License-Identifier: Apache-2.0
"""bugbox solution: how it is done, for whoever solved it or gives up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bugbox.cli.ask import ask, idle
from bugbox.cli.out import document, paint, printable, prose, say
from bugbox.cli.progressfile import solved_puzzles
from bugbox.config import load
from bugbox.errors import NotFound, StateError
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots

__all__ = ["solution"]


def solution(ref: str | None = None, /, *, give_up: bool = False, json: bool = False) -> int:
    """Show the solution of a session's puzzle, or of a puzzle by its name.

    Args:
        ref: A session or a puzzle. Without it, the only session there is.
        give_up: Show it although it is not solved.
        json: Print one JSON document.
    """
    home = Home()
    answer = _of_session(home, ref, give_up)
    if answer is None:
        answer = _of_puzzle(home, ref, give_up)
    if json:
        document(answer)
        return 0
    say(paint(printable(str(answer["title"])), "bold"))
    for head, key in (("", "text"), ("As a script", "script"), ("Why it happened", "debrief")):
        if answer.get(key):
            say()
            if head:
                say(paint(head, "bold"))
                say()
            text = str(answer[key])
            say(printable(text).rstrip() if key == "script" else prose(text))
    return 0


def _of_session(home: Home, ref: str | None, give_up: bool) -> dict[str, Any] | None:
    """Ask for a running session's; None when `ref` is a puzzle that no session has."""
    if ref is not None and ("/" in ref or idle(home)):
        return None
    try:
        answer: dict[str, Any] = ask("solution", {"id": ref, "give_up": give_up})
        return answer
    except NotFound:
        # Not a session: a puzzle, or something near the name of one.
        if ref is None:
            raise
        return None


def _of_puzzle(home: Home, ref: str | None, give_up: bool) -> dict[str, Any]:
    puzzle = find(ref, roots(load(home).puzzles), Path.cwd())
    if not give_up and puzzle.name not in solved_puzzles(home):
        raise StateError(
            f"{puzzle.name} is not solved yet",
            hint=f"bugbox solution {puzzle.name} --give-up shows it anyway",
        )
    return {
        "puzzle": puzzle.name,
        "title": puzzle.title,
        "text": puzzle.walkthrough,
        "script": puzzle.solve.text.decode(errors="replace") if puzzle.solve else "",
        "debrief": puzzle.debrief,
    }
