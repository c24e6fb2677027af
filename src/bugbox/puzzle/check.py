# SPDX-License-Identifier: Apache-2.0
"""Is it fixed? Run a puzzle's checks in the guest and say so, and why not.

A check that breaks says nothing about the learner: it is never "not solved". A machine that no
longer answers does get a verdict: not solved, undo or reset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bugbox.puzzle.definition import Puzzle

__all__ = ["Guest", "GuestResult", "Outcome", "Report", "Status", "run_checks"]

Status = Literal["passed", "failed", "skipped", "broken"]


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


async def run_checks(
    puzzle: Puzzle, guest: Guest, env: Mapping[str, str] | None = None, *, factor: float = 1.0
) -> Report:
    """Run every check that can be run; time limits are multiplied by `factor`.

    Never raises for what the guest does: that is a verdict.
    """
    raise NotImplementedError
