# SPDX-License-Identifier: Apache-2.0
"""Keep a running machine as it is now, and go back to that: the same session, disk and memory.

A checkpoint is a copy of the machine in a file of its session's folder. Going back ends the
machine and starts another where the copy was made; what happened since is gone. The checkpoint
stays, so that one can go back to it again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bugbox.errors import StateError
from bugbox.events import step
from bugbox.host.bridge import held, in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.session import chain, checkpoints
from bugbox.session.checkpoints import Kept
from bugbox.session.description import from_json, to_json
from bugbox.session.fork import is_ready, wake
from bugbox.session.freeze import freeze, require_forkable, shorten
from bugbox.session.identity import Identity
from bugbox.session.session import Session
from bugbox.session.stopwatch import Stopwatch
from bugbox.storage.file import require_free

__all__ = ["MOST", "checkpoint", "listed", "remove", "undo"]

log = logging.getLogger(__name__)

#: Checkpoints of one session.
MOST = 5
#: What one takes beside the machine's memory.
_ROOM = 64 << 20


def listed(session: Session) -> dict[str, Any]:
    """Return the checkpoints of a session, the newest first."""
    paths = session.ledger.paths
    found = [each.as_json() for each in checkpoints.kept(paths)]
    return {"id": session.id, "checkpoints": found, "damaged": checkpoints.damaged(paths)}


async def checkpoint(session: Session, label: str | None) -> dict[str, Any]:
    """Keep the machine as it is now; one of the same label is replaced."""
    require_forkable(session)
    paths, watch = session.ledger.paths, Stopwatch()
    await session.lifeline()
    async with session.change():
        name = await in_thread(checkpoints.new_label, paths, label)
        have = {each.label for each in await in_thread(checkpoints.kept, paths)}
        if len(have | {name}) > MOST:
            raise StateError(
                f"{session.id} has {len(have)} checkpoints, as many as there may be",
                hint=f"give one of their labels, to replace it: {', '.join(sorted(have))}",
            )
        need = (session.plan.mem_mib << 20) + _ROOM
        await in_thread(require_free, paths.root, need, "a checkpoint")
        coming = await in_thread(checkpoints.begin, paths)
        state = await in_thread(_new_file, coming / "state")
        try:
            with watch.stage("copy"), step("Keep the machine"):
                frozen = await freeze(session, state)
            made = time.time()
            # From here on the machine runs; none of these files changes any more.
            with watch.stage("keep"):
                await in_thread(os.fsync, state)
                files = await in_thread(checkpoints.looked_at, coming / "state", frozen.spec)
        finally:
            os.close(state)
        offset = frozen.clock_offset_ns
        await in_thread(checkpoints.publish, coming, name, made, frozen.spec, offset, files)
    return {
        "id": session.id,
        "label": name,
        "pause_ms": round(frozen.pause_ms, 1),
        "timings_ms": watch.as_ms(),
    }


async def remove(session: Session, label: str) -> dict[str, Any]:
    """Remove a checkpoint, and the images that nobody needs but it; NotFound."""
    async with session.change():
        await in_thread(checkpoints.remove, session.ledger.paths, label)
        await in_thread(_sweep, session)
    if session.state == State.READY:
        await shorten(session)
    return {"id": session.id, "removed": label}


async def undo(session: Session, label: str | None) -> dict[str, Any]:
    """Go back to a checkpoint, the newest without a label; what was done since is gone.

    StateError when one of its files does not hold what it held, or its time is over: then the
    machine stays as it is.
    """
    watch = Stopwatch()
    async with session.change(), AsyncExitStack() as opened:
        session.require_time()
        kept = await in_thread(checkpoints.chosen, session.ledger.paths, label)
        # What may fail is done before the machine ends.
        with watch.stage("look"):
            state = await opened.enter_async_context(held(checkpoints.opened_state(kept)))
        overlays = await in_thread(chain.new_overlays, kept.spec)
        spec = chain.switched(kept.spec, overlays)
        await in_thread(chain.make_overlays, spec)

        async def boot() -> Machine:
            return await _wake_up(session, kept, spec, state, watch)

        runs = session.machine is not None  # whose memory it then gets
        async with contextlib.nullcontext() if runs else session.admitted():
            await session.replace(boot, f"going back to checkpoint {kept.label}…")
        await in_thread(_sweep, session)
    return {
        "id": session.id,
        "state": session.state,
        "label": kept.label,
        "timings_ms": watch.as_ms(),
    }


async def _wake_up(
    session: Session, kept: Kept, spec: MachineSpec, state: int, watch: Stopwatch
) -> Machine:
    ledger, host = session.ledger, session.host
    booting = str(State.BOOTING)
    await in_thread(ledger.write, spec=to_json(spec), state=booting, reason="", fresh=False)
    async with AsyncExitStack() as undone:
        with watch.stage("vmm"), step("Go back"):
            machine = await host.driver.start_copy(spec, state, ledger.process_started)
        undone.push_async_callback(shielded, lambda: machine.stop(0.0))
        with watch.stage("wake"):
            same = Identity(hostname="", clock_offset_ns=kept.clock_offset_ns)
            await wake(machine, host.settings.timeout_factor, same, somebody_else=False)
            session.restored = frozenset(await machine.lifeline.terminals())
        await is_ready(ledger, machine)
        undone.pop_all()
        return machine


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _sweep(session: Session) -> None:
    spec = from_json(session.record.spec)
    chain.sweep(spec, checkpoints.pinned(session.ledger.paths))
