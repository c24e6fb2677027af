# SPDX-License-Identifier: Apache-2.0
"""The questions of `play`: go on with a session, stay or leave when solved, what to do with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import complain, duration, paint, printable, prose, say
from bugbox.cli.reset import afresh
from bugbox.errors import BugboxError

__all__ = ["after_play", "choose", "offer_to_go_on", "solved_screen"]


def choose(question: str, choices: Mapping[str, str], default: str) -> str:
    """Ask until one of the keys is typed; Enter, Ctrl-D and Ctrl-C mean the default."""
    words = ", ".join(f"[{key}] {word}" for key, word in choices.items())
    while True:
        sys.stdout.write(f"{question} Type a letter, then Enter: {words} (Enter: {default}) ")
        sys.stdout.flush()
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            line = ""
        if not line:
            say()
            return default
        typed = line.strip().lower()
        found = [
            k for k, word in choices.items() if typed and (typed == k or word.startswith(typed))
        ]
        if not typed or len(found) == 1:
            return found[0] if typed else default
        say(f'"{printable(typed)[:40]}" is none of these.')


def offer_to_go_on(puzzle: str) -> str | None:
    """Return a living session of the puzzle that the learner wants to go on with."""
    rows = [row for row in ask("ps") if row["puzzle"] == puzzle and not row.get("making")]
    if not rows:
        return None
    row = rows[-1]
    id = str(row["id"])
    say(f"{id} is there already, {row['state']}.")
    wish = choose("What now?", {"g": "go on", "r": "reset it", "n": "new one"}, "g")
    if wish == "n":
        return None
    if wish == "r":
        afresh(id)
    elif row["state"] not in ("ready", "rebooting", "booting"):
        ask("resume", {"id": id})
    return id


def solved_screen(id: str) -> str:
    """Congratulate; return the learner's wish: "" stays, "detach" keeps it, "leave" does not."""
    story = ask("story", {"id": id})
    say()
    say(paint("Solved!", "green"))
    say(_counted(story))
    if story.get("debrief"):
        say()
        say(prose(str(story["debrief"])))
    say()
    names = [f"bugbox play {printable(str(name))}" for name in story.get("next") or ()]
    say(f"Next: {', '.join(names) or 'bugbox list shows what else there is'}")
    say()
    choices = {"s": "stay", "k": "keep it and leave", "l": "leave and throw it away"}
    wish = choose("Stay and look around, or leave?", choices, "s")
    return {"s": "", "k": "detach", "l": "leave"}[wish]


def _counted(story: Mapping[str, Any]) -> str:
    after = duration(float(story.get("solved_after_s") or story.get("elapsed_s") or 0))
    hints = f"{story.get('hints_used', 0)} of {story.get('hints_of', 0)} hints"
    checks = int(story.get("checks_run", 0))
    told = f"{after}, {hints}, {checks} check{'' if checks == 1 else 's'}"
    points = story.get("points")
    return f"{told}." if points is None else f"{told}: {points} points."


def after_play(id: str, *, leave: bool, seen_solved: bool, again: str) -> bool:
    """See to the machine that was left; return whether to sit down again.

    `again` is the command that brings the learner back.
    """
    try:
        story = ask("story", {"id": id})
    except BugboxError:
        return False  # it is gone
    if story.get("solved") and not seen_solved:
        wish = solved_screen(id)
        if not wish:
            return True
        if wish == "detach":
            _goes_back(id, again)
            return False
        leave = True
    if story.get("solved") and leave:
        ask("stop", {"ids": [id]})
        say(f"{id} is thrown away.")
        return False
    if story.get("state") == "off":
        say(f"{id} is off.")
    _what_becomes_of_it(id, again)
    return False


def _what_becomes_of_it(id: str, again: str) -> None:
    choices = {"k": "keep", "r": "reset", "t": "throw away"}
    wish = choose("What becomes of the machine?", choices, "k")
    if wish == "t":
        ask("stop", {"ids": [id]})
        say(f"{id} is thrown away.")
    elif wish == "r":
        afresh(id)
        say(f"{id} is as at the start.")
    if wish != "t":
        _goes_back(id, again)


def _goes_back(id: str, again: str) -> None:
    complain(f"`{again}` or `bugbox shell {id}` goes back, `bugbox stop {id}` ends it")
