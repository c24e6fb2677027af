# SPDX-License-Identifier: Apache-2.0
"""A copy of a session's machine at one moment, while it runs: for forks, checks and checkpoints.

What the record says is right at each moment, whoever dies: it names the new images before the
machine writes to them, and as long as they are empty they change nothing. Images that no record
names are removed by the next copy, or go with the session's folder.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import anyio

from bugbox.errors import BugboxError, StateError
from bugbox.host.bridge import in_thread
from bugbox.machine.driver import Machine
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.machine.template import Capture
from bugbox.session import chain
from bugbox.session.checkpoints import pinned
from bugbox.session.description import from_json, to_json
from bugbox.session.identity import clock_offset
from bugbox.session.session import Session

__all__ = ["Frozen", "freeze", "require_forkable", "shorten"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What a copy has beside the file with its memory."""

    #: The machine as it was; nobody writes to the images of its drives any more.
    spec: MachineSpec
    #: How long the machine stood still for it.
    pause_ms: float
    #: Its wall clock minus the host's, which may be wrong on purpose.
    clock_offset_ns: int


def require_forkable(session: Session) -> None:
    """Raise StateError where a running machine cannot be copied."""
    if not session.host.driver.abilities.fork:
        raise StateError(f"{session.id}: machines of {session.record.driver} cannot be copied")
    if session.record.disk != "qcow2":
        raise StateError(
            f"{session.id}: a machine on a disk of the kind {session.record.disk} cannot be copied",
            hint="bugbox start --disk qcow2",
        )


async def freeze(session: Session, state: int) -> Frozen:
    """Copy the machine into the file `state` and leave its images as they are.

    Its clock stands still with it, and then is as far from the host's as before: many copies would
    add up. The caller holds `session.change()`. On failure the machine runs on as before.
    """
    require_forkable(session)
    machine = session.machine
    if machine is None or machine.state is not State.READY:
        raise StateError(f"{session.id} is {session.state}: only one that runs can be copied")
    before = from_json(session.record.spec)
    await in_thread(chain.sweep, before, pinned(session.ledger.paths))
    chain.require_shallow(before)
    overlays = await in_thread(chain.new_overlays, before)
    after = chain.switched(before, overlays)
    wanted = Capture(state=state, overlays=overlays)
    try:
        await in_thread(chain.make_overlays, after)
        await in_thread(session.ledger.write, spec=to_json(after))
        # Not before: a clock that somebody sets meanwhile would be set back.
        offset = await clock_offset(machine.lifeline)
        await machine.capture(wanted)
    except BaseException:
        if not wanted.switched:
            with anyio.CancelScope(shield=True):
                await in_thread(session.ledger.write, spec=to_json(before))
                await in_thread(chain.sweep, before, pinned(session.ledger.paths))
        raise
    log.info("%s was copied; it stood still for %.0f ms", session.id, wanted.pause_ms)
    await session.put_clock(machine, offset)
    return Frozen(spec=before, pause_ms=wanted.pause_ms, clock_offset_ns=offset)


async def shorten(session: Session) -> None:
    """Make one of the images that nobody needs apart any more; a failure costs nothing."""
    try:
        async with session.change():
            machine = session.machine
            if machine is not None:
                await _shorten(session, machine)
    except (BugboxError, OSError) as error:
        log.warning("%s: its disk stays in parts: %s", session.id, error)


async def _shorten(session: Session, machine: Machine) -> None:
    held = pinned(session.ledger.paths)
    for drive in from_json(session.record.spec).drives:
        spec = from_json(session.record.spec)
        images = await in_thread(chain.mergeable, spec, drive, held)
        if images:
            await machine.merge(drive.id, images)
            spec = chain.merged(spec, images)
            await in_thread(session.ledger.write, spec=to_json(spec))
            await in_thread(_remove, images[:-1])


def _remove(images: list[Path]) -> None:
    for image in images:
        image.unlink(missing_ok=True)
