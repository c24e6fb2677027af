# SPDX-License-Identifier: Apache-2.0
"""Put machines' clocks right after the host slept: theirs may have stood still meanwhile.

Whether they did is seen, not assumed: only a clock that is behind by just as long as the host slept
is set. One that was wrong before, as a puzzle meant it, is as wrong as before afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import anyio

from bugbox.errors import BugboxError
from bugbox.machine.state import State
from bugbox.session.identity import clock_offset, set_clock
from bugbox.session.session import Session

__all__ = ["before", "watch"]

log = logging.getLogger(__name__)

_EVERY = 1.0
#: A shorter sleep is left alone.
_LEAST_NS = 10**9
#: How well what the clock lost must agree with how long the host slept.
_NEAR_NS = 2 * 10**9
_TIMEOUT = 5.0


def before(offset_ns: int, slept_ns: int, known_ns: int | None) -> int | None:
    """Return how far a clock was from the host's before; None: it did not stand still.

    `offset_ns` is how far it is now, `known_ns` what was noted when it was paused last.
    """
    for meant in {0, known_ns or 0}:
        if abs(offset_ns - (meant - slept_ns)) < _NEAR_NS:
            return meant
    return None


async def watch(sessions: Callable[[], Iterable[Session]]) -> None:
    """Look for ever whether the host has slept; then look after every machine that runs."""
    seen = _asleep_ns()
    while True:
        await anyio.sleep(_EVERY)
        slept, seen = _asleep_ns() - seen, _asleep_ns()
        if slept >= _LEAST_NS:
            log.info("the host slept for %.1f s", slept / 1e9)
            async with anyio.create_task_group() as group:
                for session in sessions():
                    group.start_soon(_look_after, session, slept)


async def _look_after(session: Session, slept_ns: int) -> None:
    machine = session.machine
    if machine is None or machine.state is not State.READY or not machine.lifeline.connected:
        return
    try:
        with anyio.fail_after(_TIMEOUT * session.host.settings.timeout_factor):
            known = session.record.clock_offset_ns
            meant = before(await clock_offset(machine.lifeline), slept_ns, known)
            if meant is not None:
                await set_clock(machine.lifeline, meant)
                log.info("%s: its clock is right again", session.id)
    except (BugboxError, TimeoutError) as error:
        log.warning("%s: its clock was not looked at: %s", session.id, error)


def _asleep_ns() -> int:
    """Return for how long the host has slept since it booted."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
