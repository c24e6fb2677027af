# SPDX-License-Identifier: Apache-2.0
"""A fork of the learner's machine for one check, which may do there what it likes.

It is rebooted first where the check asks for that. It is nobody's session: its record says
`making` for as long as it lives, so whoever finds our dead body gives it back.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from anyio.lowlevel import RunVar

from bugbox.errors import BootFailed, BugboxError
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.state import State
from bugbox.puzzle.definition import Check
from bugbox.session.fork import Fork, fork
from bugbox.session.freeze import require_forkable, shorten
from bugbox.session.provision import make_ready
from bugbox.session.reaper import give_back
from bugbox.session.session import Session
from bugbox.session.stopwatch import Stopwatch

__all__ = ["clones_of"]

log = logging.getLogger(__name__)

#: Each has memory of its own, as much as the machine uses.
_AT_ONCE = 2
_slots: RunVar[anyio.Semaphore] = RunVar("slots of check clones")
#: Seconds beyond its boot's own limit that a machine may take to go down.
_GOING_DOWN = 90.0


def clones_of(session: Session) -> Callable[[Check], AbstractAsyncContextManager[Lifeline]] | None:
    """Return what makes a check's clone; None where the machine cannot be copied."""
    try:
        require_forkable(session)
    except BugboxError:
        return None
    return lambda check: _clone(session, check)


@asynccontextmanager
async def _clone(session: Session, check: Check) -> AsyncIterator[Lifeline]:
    async with _slot():
        watch = Stopwatch()
        made = await fork(session, watch, somebody_else=False)
        log.info(
            "%s: %s is checked in %s; the machine stood still for %.0f ms",
            session.id, check.id, made.ledger.record.id, made.pause_ms,
        )  # fmt: skip
        try:
            if check.after == "reboot":
                with watch.stage("reboot"):
                    await _reboot(session, made)
            yield made.machine.lifeline
        finally:
            await shielded(lambda: _throw_away(made))
            log.info("%s: %s took %s", session.id, check.id, watch.as_ms())
            await shielded(lambda: shorten(session))


def _slot() -> anyio.Semaphore:
    try:
        return _slots.get()
    except LookupError:
        made = anyio.Semaphore(_AT_ONCE)
        _slots.set(made)
        return made


async def _reboot(session: Session, made: Fork) -> None:
    """Reboot it as its owner would, and wait until somebody could work in it again."""
    machine = made.machine
    down = anyio.Event()
    machine.watch(lambda state: down.set() if state is not State.READY else None)
    await machine.lifeline.shutdown("reboot")
    with anyio.move_on_after(_GOING_DOWN * session.host.settings.timeout_factor):
        await down.wait()
    if not down.is_set():
        raise BootFailed("it did not go down for its reboot")
    await make_ready(
        machine, made.ledger, session.plan, session.host.settings, Stopwatch(), new=False
    )


async def _throw_away(made: Fork) -> None:
    try:
        await made.machine.stop(0.0)
    except BugboxError as error:
        log.warning("%s: %s", made.ledger.record.id, error)
    await in_thread(give_back, made.ledger)
