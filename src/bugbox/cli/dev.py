# SPDX-License-Identifier: Apache-2.0
"""bugbox dev: while one writes a puzzle, each save runs what it can have changed."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from bugbox.cli.out import complain, paint, say
from bugbox.cli.test import tested
from bugbox.config import load
from bugbox.errors import BugboxError
from bugbox.paths import Home
from bugbox.puzzle.catalogue import locate, roots
from bugbox.puzzle.matrix import Stage
from bugbox.session.resident import Resident

__all__ = ["State", "concerned", "dev", "look"]

#: Seconds between two looks at the folder.
_LOOK = 0.3
#: An editor writes a file in several steps: nothing may have changed for so long.
_QUIET = 0.4

_INTERRUPTED = 130

#: Times and sizes of all files, by their path in the folder.
State = dict[str, tuple[int, int]]


def dev(name: str | None = None, /, *, shell: bool = False) -> int:
    """Watch a puzzle's folder; at each save, test what the change can have broken. Ctrl-C ends it.

    A text is looked at by lint and the leak scan; a check or a solution by its own stages too;
    whatever shapes the machine by all of them. A build machine stands by for the next save.

    Args:
        name: A name of the catalogue or a folder. Without it, the folder you stand in.
        shell: Leave the machine of a failure running, to stand in it.
    """
    folder = locate(name, roots(load(Home()).puzzles), Path.cwd()).resolve()
    say(f"watching {folder}; Ctrl-C ends it")
    with closing(Resident()) as resident:
        return _follow(folder, resident, shell=shell)


def _follow(folder: Path, resident: Resident, *, shell: bool) -> int:
    seen: State = {}
    while True:
        now = _settled(folder)
        changed = {path for path in {*seen, *now} if seen.get(path) != now.get(path)}
        stages = concerned(changed) if seen else tuple(Stage)
        seen = now
        when = time.strftime("%H:%M:%S")
        say(paint(f"\n{when} {_told(changed, first=stages == tuple(Stage))}", "dim"))
        try:
            status = tested([str(folder)], only=stages, keep=shell, resident=resident)
            if status == _INTERRUPTED:
                return _INTERRUPTED
        except BugboxError as error:
            complain(f"bugbox: {error.message}")
        while look(folder) == seen:
            time.sleep(_LOOK)


def look(folder: Path) -> State:
    """Return what the folder holds; hidden files, which editors leave, are not looked at."""
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if any(part.startswith(".") or part.endswith("~") for part in inside.parts):
            continue
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue
        if not path.is_dir():
            found[inside.as_posix()] = (facts.st_mtime_ns, facts.st_size ^ facts.st_mode << 40)
    return found


def _settled(folder: Path) -> State:
    """Wait until the folder is left alone."""
    before = look(folder)
    while True:
        time.sleep(_QUIET)
        now = look(folder)
        if now == before:
            return now
        before = now


def concerned(changed: set[str]) -> tuple[Stage, ...]:
    """Return the stages that changed files can make fail; all, where anything may be."""
    found = {Stage.LINT}
    for path in changed:
        top = path.partition("/")[0]
        if top in ("hints", "hints.md") or path.endswith(".md"):
            found.add(Stage.LEAK)
        elif top == "checks":
            found |= {Stage.UNTOUCHED, Stage.HONEST, Stage.SOLVE, Stage.WRONG, Stage.LEAK}
        elif top in ("solve.sh", "solve.d"):
            found |= {Stage.SOLVE, Stage.REBOOT, Stage.LEAK}
        elif top == "wrong.d":
            found.add(Stage.WRONG)
        else:
            return tuple(Stage)
    return tuple(stage for stage in Stage if stage in found)


def _told(changed: set[str], *, first: bool) -> str:
    names = ", ".join(sorted(changed)[:4]) + (" …" if len(changed) > 4 else "")
    return f"{names}: everything" if first else names
