# SPDX-License-Identifier: Apache-2.0
"""What a learner asks about an attempt: is it fixed, help me, show me; and what is remembered."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from bugbox.errors import BugboxError, GuestError, MachineLost, StateError, UserError
from bugbox.events import notice
from bugbox.host.bridge import in_thread
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.puzzle.check import LOST, Report, run_checks
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.hint import every_hint, give, next_hint
from bugbox.puzzle.markdown import render
from bugbox.puzzle.quantity import format_duration
from bugbox.puzzle.score import points, told
from bugbox.puzzle.text import printable
from bugbox.puzzle.variants import fill
from bugbox.session.check_clone import clones_of
from bugbox.session.limits import bind, ends_at
from bugbox.session.record import Record
from bugbox.session.session import Session

__all__ = ["Attempt", "verdict"]

log = logging.getLogger(__name__)

#: A person types a verb a few times a minute; a loop in the guest does not get more than that.
_BURST = 5
_SECONDS_EACH = 2.0
_NEWS = "Solved. Leave with `exit`: then `bugbox play` tells what was behind it"
_TOO_MANY = (b"Too many questions; wait a moment.\n", 75)


class Attempt:
    """One learner, one puzzle, one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._checking = anyio.Lock()
        self._tokens = float(_BURST)
        #: When a check was last asked for (time.monotonic).
        self._checked = -math.inf
        self._counted = time.monotonic()

    @property
    def puzzle(self) -> Puzzle:
        """The puzzle; UserError for a bare machine."""
        if self.session.plan.puzzle is None:
            raise UserError(f"{self.session.id} is a bare machine: there is no puzzle to it")
        return self.session.plan.puzzle

    @property
    def min_interval(self) -> float:
        """Seconds between two checks, where that binds."""
        puzzle = self.session.plan.puzzle
        return puzzle.manifest.check_policy.min_interval if puzzle and self._bound else 0.0

    @property
    def _bound(self) -> bool:
        return bind(self.session.host.settings)

    async def check(self, *, by_itself: bool = False) -> dict[str, Any]:
        """Run the checks; there is a verdict also when the machine no longer answers.

        `by_itself`: nobody asked. It is remembered and told when it is solved, and only then.
        StateError when the last one was too short a time ago.
        """
        async with self._checking:
            if not by_itself:
                self._keep_pace()
            edge = self.puzzle.manifest.check_policy.mode == "edge"
            passed = self.session.record.passed if edge else ()
            report = await verdict(self.session, self.puzzle, passed)
            news = report.solved is True and not self.session.record.solved_after
            if news or not by_itself:
                await self._noted(lambda: self._remember(report, edge=edge))
            if news and by_itself:
                self.session.tell(_NEWS)
        return told(self.puzzle, report).as_json()

    def _keep_pace(self) -> None:
        """Refuse a check that comes too soon after the last one."""
        now = time.monotonic()
        left = self._checked + self.min_interval - now
        if self.min_interval and left > 0:
            raise StateError(
                f"{self.session.id}: the next check can be asked for in {math.ceil(left)} s",
                hint=f"its puzzle allows one in {format_duration(self.min_interval)}",
            )
        self._checked = now

    async def _noted(self, write: Callable[[], object]) -> None:
        """Write something down; a full disk costs the learner neither verdict nor hint."""
        try:
            await in_thread(write)
        except (OSError, StateError) as error:
            log.warning("%s: not written down: %s", self.session.id, error)
            notice(f"this is not remembered: {error}")

    def _remember(self, report: Report, *, edge: bool) -> None:
        ledger = self.session.ledger
        first = False

        def counted(record: Record) -> dict[str, Any]:
            nonlocal first
            changes: dict[str, Any] = {"checks_run": record.checks_run + 1}
            if report.solved is False:
                changes["checks_failed"] = record.checks_failed + 1
            first = report.solved is True and not record.solved_after
            if edge:
                changes["passed"] = tuple(o.id for o in report.checks if o.status == "passed")
            if first:
                changes["solved_after"] = max(0.001, time.time() - record.started)
                changes["points"] = self._worth(record)
            return changes

        record = ledger.update(counted)
        if first:
            _note_solved(self.session.host.home, record)

    def _worth(self, record: Record) -> int | None:
        return points(
            self.puzzle,
            failed_checks=record.checks_failed,
            hints=record.hints,
            gave_up=record.gave_up,
        )

    async def hint(
        self, n: int | None = None, *, all: bool = False, now: bool = False
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Give a hint, or all of them; remember which were given."""
        puzzle, record, values = self.puzzle, self.session.record, self.session.plan.values
        pace: dict[str, Any] = {
            "elapsed_s": max(0.0, time.time() - record.started),
            "failed_checks": record.checks_failed,
            "bound": self._bound,
        }
        if all:
            hints = every_hint(puzzle, values=values, **pace)
        else:
            given = max(record.hints, default=0)
            hints = [
                give(puzzle, n, values=values, **pace)
                if n is not None
                else next_hint(puzzle, given, now=now, values=values, **pace)
            ]
        new = {hint.n for hint in hints if hint.text is not None}
        if not new <= set(record.hints):
            seen = tuple(sorted(new | set(record.hints)))
            await self._noted(lambda: self.session.ledger.write(hints=seen))
        return [hint.as_json() for hint in hints] if all else hints[0].as_json()

    async def solution(self, *, give_up: bool = False) -> dict[str, Any]:
        """Tell the solution to whoever solved it or gives up; StateError otherwise."""
        puzzle, record = self.puzzle, self.session.record
        if not (record.solved_after or record.gave_up or give_up):
            raise StateError(
                f"{record.id} is not solved yet",
                hint=f"bugbox solution {record.id} --give-up shows it anyway",
            )
        if not record.solved_after and not record.gave_up:
            await self._noted(lambda: self.session.ledger.write(gave_up=True))
        solve = puzzle.solve.text.decode(errors="replace") if puzzle.solve else ""
        return {
            "id": record.id,
            "puzzle": puzzle.name,
            "title": puzzle.title,
            "text": self._filled(puzzle.walkthrough),
            "script": solve,
            "debrief": self._filled(puzzle.debrief),
        }

    def story(self) -> dict[str, Any]:
        """Return what there is to read, and how far the learner is."""
        record, puzzle = self.session.record, self.puzzle
        over = record.solved_after or record.gave_up
        return {
            "id": record.id,
            "puzzle": puzzle.name,
            "folder": record.folder,
            "title": puzzle.title,
            "goal": puzzle.manifest.summary,
            "text": self._filled(puzzle.description),
            "state": self.session.state,
            "solved": bool(record.solved_after),
            "solved_after_s": round(record.solved_after, 1),
            "elapsed_s": round(max(0.0, time.time() - record.started), 1),
            "ends_in_s": self._ends_in(),
            "hints_used": len(record.hints),
            "hints_of": len(puzzle.hints),
            "checks_run": record.checks_run,
            "points": record.points if record.solved_after else self._worth(record),
            "debrief": self._filled(puzzle.debrief) if over else "",
            "next": list(puzzle.manifest.next),
        }

    def _ends_in(self) -> float | None:
        """Seconds that are left; None: nobody counts them."""
        end = ends_at(self.session.plan, self.session.record) if self._bound else None
        return None if end is None else round(max(0.0, end - time.time()), 1)

    def _filled(self, text: str) -> str:
        """Put the session's variants into a text."""
        return fill(text, self.session.plan.values)

    async def asked(self, verb: str, args: Sequence[str]) -> tuple[bytes, int]:
        """Answer `bugbox check|hint|story` typed in the guest: text and an exit status.

        Of a person's terminal the guest tells the width, as `--width=COLUMNS`.
        """
        if not self._allowed():
            return _TOO_MANY
        try:
            if verb == "check":
                return _check_text(await self.check())
            if verb == "hint":
                hint = await self.hint(*_number(args), now="--now" in args)
                return _hint_text(hint, _width(args), bound=self._bound)
            if verb == "story":
                puzzle = self.puzzle
                text = f"# {puzzle.title}\n\n{self._filled(puzzle.description)}"
                return _laid_out(text, _width(args)), 0
        except BugboxError as error:
            return _encode(error.message), error.exit_status
        return b"bugbox: check, hint and story work in here.\n", 2

    def _allowed(self) -> bool:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._counted) / _SECONDS_EACH)
        self._counted = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


async def verdict(session: Session, puzzle: Puzzle, passed: Collection[str] = ()) -> Report:
    """Run a puzzle's checks in a session's machine, also in one that no longer answers.

    Those in `passed` count as passed already.
    """
    try:
        guest: Any = await session.lifeline()
    except MachineLost as error:
        guest = _Silent(error)
    except StateError as error:
        # One that is off or stands still can be resumed; one that died cannot answer.
        if session.state != State.FAILED:
            raise
        guest = _Silent(MachineLost(error.message))
    factor = session.host.settings.timeout_factor
    machine = session.machine
    report = await run_checks(
        puzzle,
        guest,
        session.plan.env,
        factor=factor,
        outside=machine if machine is not None and machine.spec.nics else None,
        clones=clones_of(session),
        passed=passed,
    )
    return _with_resume(report, session) if session.state == State.FAILED else report


def _with_resume(report: Report, session: Session) -> Report:
    """Name the gentlest way on too: the disk is there, so the machine can be booted again."""
    more = f"{LOST}; or bugbox resume {session.id}, which boots it again as it is"
    checks = (
        replace(check, message=more) if check.message == LOST else check for check in report.checks
    )
    return replace(report, checks=tuple(checks))


class _Silent:
    """A guest that does not answer: each check gets its verdict from that."""

    def __init__(self, why: MachineLost) -> None:
        self._why = why

    async def ping(self, timeout: float) -> float:
        """Raise."""
        raise GuestError(self._why.message)

    async def script(self, *_: object, **__: object) -> Any:
        """Raise."""
        raise GuestError(self._why.message)


def _note_solved(home: Home, record: Record) -> None:
    """Add a line to progress.jsonl. One short append is whole, whoever else appends."""
    line = {
        "event": "solved",
        "puzzle": record.puzzle,
        "id": record.id,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(record.solved_after, 1),
        "hints": len(record.hints),
        "checks": record.checks_run,
        "gave_up": record.gave_up,
        **({} if record.points is None else {"points": record.points}),
    }
    fd = os.open(home.progress, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def _number(args: Sequence[str]) -> tuple[int, ...]:
    numbers = [arg for arg in args if arg.isascii() and arg.isdigit() and len(arg) < 5]
    return (int(numbers[0]),) if numbers else ()


def _width(args: Sequence[str]) -> int:
    """Return the columns of the asking terminal, 0 without one. The guest may say anything."""
    told = next((arg[8:12] for arg in args if arg.startswith("--width=")), "")
    return min(int(told), 100) if told.isascii() and told.isdigit() else 0


def _laid_out(markdown: str, width: int) -> bytes:
    text = render(markdown, width or 80, colour=width > 0)
    return text.encode(errors="replace")


def _encode(text: str) -> bytes:
    return printable(text).rstrip("\n").encode(errors="replace") + b"\n"


def _check_text(report: Mapping[str, Any]) -> tuple[bytes, int]:
    lines = []
    for check in report["checks"]:
        lines.append(f"{check['status']:>8}  {check['title']}")
        if check["message"]:
            lines.append(f"          {check['message']}")
    verdict = {True: ("Solved.", 0), False: ("Not solved yet.", 1), None: ("Undecided.", 4)}
    word, status = verdict[report["solved"]]
    if status == 0:
        lines.append("Leave with `exit`: then `bugbox play` tells what was behind it.")
    return _encode("\n".join([*lines, word])), status


def _hint_text(hint: Any, width: int, *, bound: bool) -> tuple[bytes, int]:
    head = f"Hint {hint['n']} of {hint['of']}: {hint['title']}"
    if hint["text"] is None:
        wait = hint["next_in_s"]
        when = f"in {wait} s" if wait else "after more checks"
        way = "" if bound else "; bugbox hint --now gives it"
        return _encode(f"{head}\nMeant for later ({when}){way}."), 0
    return _laid_out(f"{head}\n\n{hint['text']}", width), 0
