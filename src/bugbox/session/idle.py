# SPDX-License-Identifier: Apache-2.0
"""Pause machines that nobody uses.

Idle is a machine that is ready, in which no command, check or transfer is under way, where for
the whole time no byte went either way on a terminal, a forward or the console, and whose VMM used
next to no CPU. It is paused; whoever uses it next lets it run on (session.session).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

import anyio

from bugbox.errors import BugboxError
from bugbox.host.proc import Process
from bugbox.machine.state import State
from bugbox.session.session import Session

__all__ = ["Caretaker", "Idleness"]

log = logging.getLogger(__name__)

#: Share of one CPU that a quiet machine's VMM stays below from one look to the next.
_QUIET = 0.05
#: Seconds between two looks: at most, at least, and as a share of the time until the pause.
_EVERY_MOST, _EVERY_LEAST, _EVERY_SHARE = 15.0, 0.25, 0.1


class Idleness:
    """How long one session's machine has been left alone."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._used = time.monotonic()
        self._process: Process | None = None
        self._ticks = 0
        self._looked = 0.0

    def look(self) -> float:
        """Return for how many seconds nothing has happened, as far as looks can tell."""
        now = time.monotonic()
        session = self._session
        machine = session.machine
        if machine is None or machine.state is not State.READY or session.trouble:
            self._process = None
            self._used = now
            return 0.0
        busy = machine.lifeline.working or session.changing.locked()
        if self._worked(machine.process, now) or busy:
            self._used = now
        self._used = max(self._used, machine.lifeline.moved, session.typed)
        return max(0.0, now - self._used)

    def _worked(self, process: Process, now: float) -> bool:
        """Whether the VMM has done anything worth mentioning since the last look."""
        before, then, same = self._ticks, self._looked, process == self._process
        self._process, self._ticks, self._looked = process, process.cpu_ticks(), now
        if not same:
            return True
        used = (self._ticks - before) / os.sysconf("SC_CLK_TCK")
        return used > max(_QUIET * (now - then), 1.5 / os.sysconf("SC_CLK_TCK"))


class Caretaker:
    """Looks after the sessions of one keeper."""

    def __init__(
        self, sessions: Callable[[], Iterable[Session]], seconds: float, *, limits: bool = False
    ) -> None:
        self._sessions = sessions
        #: 0: none is paused for that, but where `limits` let a puzzle's own time bind.
        self._seconds = seconds
        self._limits = limits
        self._known: WeakKeyDictionary[Session, Idleness] = WeakKeyDictionary()

    def idle(self, session: Session) -> float:
        """Return for how many seconds a session has been left alone, as far as looks can tell."""
        if session not in self._known:
            self._known[session] = Idleness(session)
        return self._known[session].look()

    async def run(self) -> None:
        """Look at all of them for ever; pause each that was left alone for long enough."""
        while True:
            soonest = min(filter(None, map(self._limit, self._sessions())), default=self._seconds)
            await anyio.sleep(min(max(_EVERY_SHARE * soonest, _EVERY_LEAST), _EVERY_MOST))
            for session in list(self._sessions()):
                seconds = self._limit(session)
                if seconds and self.idle(session) >= seconds and session.plan.pausable:
                    await _pause(session, seconds)

    def _limit(self, session: Session) -> float:
        """Seconds for which a session may be left alone; 0: for ever."""
        own = session.plan.limits.idle if self._limits else None
        return min(filter(None, (self._seconds, own)), default=0.0)


async def _pause(session: Session, seconds: float) -> None:
    since = time.monotonic()
    try:
        await session.pause(f"nobody has used it for {_spoken(seconds)}")
        log.info("%s is paused: %s", session.id, session.resting)
        lifeline = session.machine.lifeline if session.machine else None
        moved = max(session.typed, lifeline.moved if lifeline else 0.0)
        if moved > since or (lifeline is not None and lifeline.working):
            await session.wake()  # somebody came in that very moment
    except (BugboxError, OSError) as error:
        log.warning("%s could not be paused: %s", session.id, error)


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
