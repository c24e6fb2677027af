# SPDX-License-Identifier: Apache-2.0
"""Is it fixed? Run a puzzle's checks in the guest and say so, and why not.

A check that breaks says nothing about the learner: it is never "not solved". A machine that no
longer answers does get a verdict: not solved, undo or reset.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import anyio

from bugbox.errors import BugboxError, GuestError, MachineLost
from bugbox.puzzle.definition import Check, Puzzle
from bugbox.puzzle.probe import Outside, probed
from bugbox.puzzle.script import with_helpers
from bugbox.puzzle.text import one_line, printable
from bugbox.puzzle.variants import PREFIX

__all__ = [
    "LOST",
    "NOT_CHECKED",
    "Clones",
    "Guest",
    "GuestResult",
    "Outcome",
    "Report",
    "Status",
    "run_checks",
]

Status = Literal["passed", "failed", "skipped", "broken"]

#: About a check whose clone was not there for it.
NOT_CHECKED = "could not be checked"
LOST = "the machine no longer answers: undo or reset"
NO_CLONE = "it runs in a clone of the machine, and this machine cannot be cloned"
NO_CARD = "it is sent through a network card, which this machine does not have"
_NO_SENTENCE = "not yet; the check does not say why"
#: Seconds a lifeline has to answer a ping before the machine counts as lost.
_PING_S = 10.0
#: Seconds beyond a check's own limit before we stop waiting for the lifeline to end it.
_GRACE_S = 20.0
#: What a check may print; the sentence is the end of it.
_OUTPUT_LIMIT = 64 << 10


class GuestResult(Protocol):
    """What became of a script in the guest (machine.lifeline.shell.Result)."""

    @property
    def status(self) -> int | None:
        """Exit status; None when a signal ended it, or when time did."""

    @property
    def signal(self) -> int | None:
        """The signal that ended it."""

    @property
    def stdout(self) -> bytes:
        """What it printed."""

    @property
    def stderr(self) -> bytes:
        """What it complained about."""

    @property
    def timed_out(self) -> bool:
        """Whether it was ended by us because its time was over."""


class Guest(Protocol):
    """What checks need of a machine (machine.lifeline.shell.Lifeline offers it)."""

    async def script(
        self,
        text: bytes,
        name: str,
        *,
        args: Sequence[str] = (),
        user: str = "root",
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        timeout: float = 30.0,
        limit: int = 1 << 20,
    ) -> GuestResult:
        """Run an injected script; GuestError or MachineLost when it could not be run."""

    async def ping(self, timeout: float) -> float:
        """Return the seconds an answer took; GuestError when none came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check said. `message` is printable, one line, for the learner."""

    id: str
    title: str
    status: Status
    message: str = ""
    seconds: float = 0.0
    #: A failed check that said nothing: fine for a learner, an error in `test`.
    no_sentence: bool = False
    #: A failed check that could not be run: the machine lacks a program.
    no_program: bool = False
    #: A skipped check that this host has no means to run.
    not_here: bool = False
    #: For the author: what a broken check printed.
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All checks of one run, in the manifest's order."""

    checks: tuple[Outcome, ...]

    @property
    def solved(self) -> bool | None:
        """True: all passed; False: one failed; None: none failed, but one broke or was skipped."""
        statuses = {outcome.status for outcome in self.checks}
        if "failed" in statuses:
            return False
        return True if statuses == {"passed"} else None

    @property
    def exit_status(self) -> int:
        """0 solved, 1 not solved, 4 undecided."""
        return {True: 0, False: 1, None: 4}[self.solved]

    def as_json(self) -> dict[str, Any]:
        """Return the shape that `check --json` prints."""
        keys = ("id", "title", "status", "message", "seconds")
        checks = [{key: getattr(outcome, key) for key in keys} for outcome in self.checks]
        return {"solved": self.solved, "checks": checks}


#: Makes a clone of the machine for one check, ready for it, and takes it away afterwards.
Clones = Callable[[Check], AbstractAsyncContextManager[Guest]]


async def run_checks(
    puzzle: Puzzle,
    guest: Guest,
    env: Mapping[str, str] | None = None,
    *,
    factor: float = 1.0,
    outside: Outside | None = None,
    clones: Clones | None = None,
    passed: Collection[str] = (),
) -> Report:
    """Run every check that can be run; time limits are multiplied by `factor`.

    `outside` is the way in through the machine's network card, if it has one; `clones` makes
    clones of it, if it can be copied; the checks in `passed` count as passed and are not run.
    Never raises for what the guest does: that is a verdict.
    """
    outcomes: dict[str, Outcome] = {}
    lost = False
    for check in puzzle.checks:
        if check.id in passed:
            outcomes[check.id] = _outcome(check, "passed")
            continue
        reason = LOST if lost else _why_skipped(check, outcomes, outside, clones)
        if reason:
            skipped = _outcome(check, "skipped", reason)
            not_here = reason in (NO_CLONE, NO_CARD) or _waits_in_vain(check, outcomes)
            outcomes[check.id] = replace(skipped, not_here=not_here)
            continue
        begun = time.monotonic()
        if check.probe is not None and outside is not None:
            verdict = await _probe(check, guest, outside, env or {}, factor)
        elif check.where == "clone" and clones is not None:
            verdict = await _run_in_clone(check, guest, clones, env or {}, factor)
        else:
            verdict = await _run(check, guest, env or {}, factor)
        lost = verdict is None
        found = verdict or _outcome(check, "failed", LOST)
        seconds = round(time.monotonic() - begun, 3)
        outcomes[check.id] = replace(found, seconds=seconds)
    return Report(checks=tuple(outcomes.values()))


def _why_skipped(
    check: Check,
    outcomes: Mapping[str, Outcome],
    outside: Outside | None,
    clones: Clones | None,
) -> str:
    for need in check.needs:
        if outcomes[need].status != "passed":
            return f"first: {outcomes[need].title}"
    if check.probe is not None and outside is None:
        return NO_CARD
    return NO_CLONE if check.where == "clone" and clones is None else ""


def _waits_in_vain(check: Check, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether it is skipped only because one that it needs cannot be run here."""
    missing = [outcomes[need] for need in check.needs if outcomes[need].status != "passed"]
    return bool(missing) and all(outcome.not_here for outcome in missing)


async def _run_in_clone(
    check: Check, guest: Guest, clones: Clones, env: Mapping[str, str], factor: float
) -> Outcome | None:
    """Run one check in a clone. What becomes of the clone says nothing about the learner."""
    if not await _answers(guest, factor):
        return None
    try:
        async with clones(check) as clone:
            found = await _run(check, clone, env, factor)
    except BugboxError as error:
        why = one_line(error.message)
        broken = _outcome(check, "broken", f"{NOT_CHECKED}: {why}")
        return replace(broken, detail=printable(error.detail or "").strip())
    return found or _outcome(check, "broken", f"{NOT_CHECKED}: its clone no longer answers")


async def _run(check: Check, guest: Guest, env: Mapping[str, str], factor: float) -> Outcome | None:
    """Run one check; None when the machine no longer answers."""
    assert check.script is not None
    limit = check.timeout_s * factor
    try:
        with anyio.fail_after(limit + _GRACE_S * factor):
            result = await guest.script(
                with_helpers(check.script.text),
                check.script.label,
                user=check.user,
                env=env,
                timeout=limit,
                limit=_OUTPUT_LIMIT,
            )
    except MachineLost:
        return None
    except (GuestError, TimeoutError) as error:
        # Was it this check, or is nobody there?
        if not await _answers(guest, factor):
            return None
        why = one_line(str(error)) or "the machine did not say how it ended"
        return _outcome(check, "broken", f"the check could not be run: {why}")
    if result.timed_out and not await _answers(guest, factor):
        return None
    return _judged(check, result, limit)


async def _probe(
    check: Check, guest: Guest, outside: Outside, env: Mapping[str, str], factor: float
) -> Outcome | None:
    """Send a check's probe; None when the machine no longer answers."""
    assert check.probe is not None
    values = {name.removeprefix(PREFIX): value for name, value in env.items()}
    try:
        wrong = await probed(check.probe, outside, values, check.timeout_s * factor)
    except MachineLost:
        return None
    except (GuestError, ValueError) as error:
        why = one_line(str(error))
        return _outcome(check, "broken", f"the probe could not be sent: {why}")
    # Silence is a dead machine's answer, too, to a probe that hopes for it.
    if (wrong or check.probe.closed) and not await _answers(guest, factor):
        return None
    return _outcome(check, "failed" if wrong else "passed", one_line(wrong))


async def _answers(guest: Guest, factor: float) -> bool:
    try:
        with anyio.fail_after(_PING_S * factor):
            await guest.ping(_PING_S * factor)
    except (GuestError, TimeoutError):
        return False
    return True


def _judged(check: Check, result: GuestResult, limit: float) -> Outcome:
    """Read the contract of a check's exit status."""
    if result.timed_out:
        return _broken(check, result, f"the check did not end within {limit:g} s")
    if result.status is None:
        return _broken(check, result, f"the check was ended by {_signal_name(result.signal)}")
    if result.status == 0:
        return _outcome(check, "passed")
    if result.status == 1:
        sentence = _sentence(result.stdout)
        found = _outcome(check, "failed", sentence or _NO_SENTENCE)
        return replace(found, no_sentence=not sentence, detail=_complaints(result))
    if result.status in (126, 127):
        message = f"the check needs {_missing(result.stderr)}, which this machine no longer has: "
        failed = _outcome(check, "failed", message + "undo or reset")
        return replace(failed, no_program=True, detail=_complaints(result))
    return _broken(check, result, f"the check broke: it ended with status {result.status}")


def _broken(check: Check, result: GuestResult, message: str) -> Outcome:
    """Say how it broke, and the last it said: that is all a reader has to go by."""
    said = _sentence(result.stderr) or _sentence(result.stdout)
    message += f"; it said: {said}" if said else ""
    return replace(_outcome(check, "broken", message), detail=_complaints(result))


def _outcome(check: Check, status: Status, message: str = "") -> Outcome:
    return Outcome(id=check.id, title=check.title, status=status, message=message)


def _sentence(stdout: bytes) -> str:
    """Return the last line that says something; the guest's text, so made printable."""
    lines = [line for line in stdout[-_OUTPUT_LIMIT:].split(b"\n") if line.strip()]
    return one_line(lines[-1]) if lines else ""


def _complaints(result: GuestResult) -> str:
    return printable(result.stderr[-4096:]).strip()


#: Of a bounded length: the guest could make an unbounded one cost the square of its output.
_NOT_FOUND = re.compile(r"([^\s:']{1,200})'?: (?:not found|Permission denied|No such file)")


def _missing(stderr: bytes) -> str:
    """Find in the shell's complaint what could not be run."""
    found = _NOT_FOUND.findall(stderr[-4096:].decode("utf-8", "replace"))
    return one_line(found[-1], 60) if found else "a program"


def _signal_name(signo: int | None) -> str:
    try:
        return signal.Signals(signo or 0).name
    except ValueError:
        return f"signal {signo}"
