# SPDX-License-Identifier: Apache-2.0
"""bugbox play: everything between a puzzle's name and its solution, in one terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from bugbox.cli import prepare
from bugbox.cli.ask import escape_setting, idle
from bugbox.cli.demo import demo as show_demo
from bugbox.cli.demo import description
from bugbox.cli.leaving import after_play, offer_to_go_on, solved_screen
from bugbox.cli.menu import attempt, check_action, hooks, introduce
from bugbox.cli.out import complain, printable, prose, say
from bugbox.cli.packed import is_packed, taken_in
from bugbox.cli.progressfile import solved_puzzles
from bugbox.cli.shell import terminal_args
from bugbox.cli.start import begin
from bugbox.cli.terminal import Hooks, escape_key, live
from bugbox.config import load
from bugbox.errors import UserError
from bugbox.keeper.client import Terminal
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.puzzle.definition import Puzzle

__all__ = ["play"]


def play(
    name: str | None = None, /, *, cold: bool = False, demo: bool = False, json: bool = False
) -> int:
    """Build what is missing, start, and give you a terminal with checks and hints at hand.

    Args:
        name: A name of the catalogue, a folder or a packed file. Without it, this folder.
        cold: Boot from the start, also where a ready machine could be cloned.
        demo: Show the whole story without a keyboard, solution included.
        json: With --demo, print one JSON document.
    """
    home = Home()
    wanted = taken_in(name) if name is not None and is_packed(name) else name
    puzzle = find(wanted, roots(load(home).puzzles), Path.cwd())
    if demo:
        return show_demo(puzzle, cold=cold, json=json)
    if json:
        raise UserError("play talks to a person", hint="use --demo --json, or start --json")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("play needs a terminal", hint="use --demo or start")
    id = None if idle(home) else offer_to_go_on(puzzle.name)
    if id is None:
        _advise(puzzle, solved_puzzles(home))
        prepare.announce(puzzle)
        args = {"puzzle": str(puzzle.folder), "cold": cold}
        id = str(begin(args)["id"])
        say()
        say(prose(description(puzzle, id)))
        say()
    return _sit_down(home, id, f"bugbox play {name}" if name else "bugbox play")


def _advise(puzzle: Puzzle, solved: Collection[str]) -> None:
    """Name what its author would have had solved before; nobody is kept from it."""
    first = [name for name in puzzle.manifest.requires if name not in solved]
    if first:
        say(f"Better first: {', '.join(f'bugbox play {printable(name)}' for name in first)}")


def _sit_down(home: Home, id: str, again: str) -> int:
    """Give the terminal to the learner until they leave, and ask what becomes of the machine."""
    escape = escape_key(escape_setting(home))
    evening = _Evening(id)
    while True:
        with Terminal(home, terminal_args({"id": id})) as link:
            introduce(link.info, escape)
            end = live(link, evening.hooks(), escape)
            if end.how != "exit":
                link.detach()
        if end.how == "lost":
            return 0
        if end.how == "detach":
            complain(f"\n{id} runs on: `{again}` or `bugbox shell {id}` goes back")
            return 0
        say()
        leave, seen = end.how == "leave", evening.solved
        if not after_play(id, leave=leave, seen_solved=seen, again=again):
            return 0


class _Evening:
    """What one sitting at a puzzle knows."""

    def __init__(self, id: str) -> None:
        self._id = id
        #: Whether the solved screen was shown.
        self.solved = False

    def hooks(self) -> Hooks:
        """Return the menu, where a check that passes brings the solved screen."""
        plain = hooks(self._id)
        return Hooks({**plain.actions, "c": lambda: attempt(self._check)})

    def _check(self) -> str:
        if not check_action(self._id) or self.solved:
            return ""
        self.solved = True
        return solved_screen(self._id)
