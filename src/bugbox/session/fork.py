# SPDX-License-Identifier: Apache-2.0
"""Another machine that goes on where a running one is, which hardly notices.

    a record of its own  ->  the running machine is copied  ->  images of its own over that one's
    a VMM where that one was  ->  entropy, clock, and a name of its own, or the end of the fork

The memory goes through a file without a name: it is nowhere on the disk, and gone with us.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

from bugbox.errors import GuestError
from bugbox.events import step
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.session import chain
from bugbox.session.description import to_json
from bugbox.session.freeze import Frozen, freeze, require_forkable
from bugbox.session.identity import (
    Identity,
    host_keys,
    hostname,
    refresh,
    rejuvenate,
)
from bugbox.session.limits import bind
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, claim
from bugbox.session.session import Session
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.vmm_user import make_socket_folder, own_uid
from bugbox.storage.memory import anonymous

__all__ = ["Fork", "fork", "is_ready", "wake"]

#: Seconds from the VMM's start to the end of the rejuvenation.
_WAKE_TIMEOUT = 30.0
#: Of a record, what a fork has from the one that it was made of.
_INHERITED = (
    "folder", "title", "user", "driver", "kernel", "disk", "template", "layer", "variants",
    "degraded", "boots", "hints", "gave_up", "until",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A fork that answers. Its record says `making`: whoever makes it a session writes that."""

    ledger: Ledger
    machine: Machine
    #: How long the machine that it was made of stood still.
    pause_ms: float


async def fork(
    session: Session, watch: Stopwatch, *, asked: bool = False, somebody_else: bool = True
) -> Fork:
    """Fork a session's machine; on failure nothing is left, and the machine has run on.

    Without `somebody_else` it keeps its name and keys: for those who ask it what its original
    would have said.
    """
    require_forkable(session)
    # Before its own turn: one that is on the disk takes a turn to be loaded.
    await session.wake()
    async with AsyncExitStack() as room, AsyncExitStack() as taken:
        with watch.stage("room"):
            await room.enter_async_context(session.admitted())
        lifeline = await session.lifeline()
        with watch.stage("look"):
            identity = await _identity(session, lifeline, somebody_else)
        inherited = {name: getattr(session.record, name) for name in _INHERITED}
        ledger = await in_thread(
            lambda: claim(
                session.host.home,
                session.plan.name,
                asked=asked,
                # Where time is limited, a fork gets none that its origin does not have.
                started=session.record.started if bind(session.host.settings) else time.time(),
                fresh=False,
                **inherited,
            )
        )
        taken.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
        state = await in_thread(anonymous, f"bugbox {ledger.record.id}")
        with _closing(state):
            async with session.change():
                with watch.stage("copy"), step("Copy the machine"):
                    frozen = await freeze(session, state)
                with watch.stage("disk"):
                    # While nobody merges images: from now on they have two names.
                    spec = await in_thread(_take_disk, ledger, session, frozen)
            os.lseek(state, 0, os.SEEK_SET)
            with watch.stage("vmm"), step("Fork"):
                machine = await session.host.driver.start_copy(spec, state, ledger.process_started)
        taken.push_async_callback(shielded, lambda: machine.stop(0.0))
        with watch.stage("wake"):
            name = ledger.record.id if identity.hostname else ""
            own = dataclasses.replace(
                identity, hostname=name, clock_offset_ns=frozen.clock_offset_ns
            )
            await wake(machine, session.host.settings.timeout_factor, own, somebody_else)
        await is_ready(ledger, machine)
        taken.pop_all()
        return Fork(ledger=ledger, machine=machine, pause_ms=frozen.pause_ms)


async def wake(machine: Machine, factor: float, identity: Identity, somebody_else: bool) -> None:
    """Let nobody in before it has entropy, a clock and what it must not share; GuestError."""
    limit = _WAKE_TIMEOUT * factor
    try:
        async with asyncio.timeout(limit):
            await machine.wait_lifeline()
            if somebody_else:
                await rejuvenate(machine.lifeline, identity)
            else:
                await refresh(machine.lifeline, identity.clock_offset_ns)
    except TimeoutError:
        raise GuestError(f"the copy did not wake up within {limit:g} s") from None


async def is_ready(ledger: Ledger, machine: Machine) -> None:
    """Let a copy that is awake be used, and write down which boot of the guest it goes on with."""
    await machine.reached(State.READY)
    hello = machine.lifeline.hello
    await in_thread(
        ledger.write,
        state=str(State.READY),
        reason="",
        guest_boot=hello.boot_id if hello else "",
    )


async def _identity(session: Session, lifeline: Lifeline, somebody_else: bool) -> Identity:
    """Ask the machine what its fork must have otherwise; the clock is the copy's to tell."""
    if not somebody_else:
        return Identity(hostname="", clock_offset_ns=0)
    name = await hostname(lifeline)
    assert session.machine is not None
    return Identity(
        # It is called after its session, or as the puzzle or the learner wants it.
        hostname=name if name == session.id else "",
        clock_offset_ns=0,
        host_keys=await host_keys(lifeline),
        network=bool(session.machine.spec.nics),
    )


def _take_disk(ledger: Ledger, session: Session, frozen: Frozen) -> MachineSpec:
    """Write down what the fork takes, then take it: links to the images, one on top of each."""
    home, root = frozen.spec.root, ledger.paths.root
    own = dataclasses.replace(
        frozen.spec,
        id=ledger.record.id,
        root=root,
        runtime=ledger.paths.runtime,
        uid=own_uid(session.host.home, session.host.settings, ledger.record.id),
        drives=chain.linked(frozen.spec.drives, home, root),
    )
    overlays = chain.new_overlays(own)
    spec = chain.switched(own, overlays)
    ledger.write(sync=False, holds=("sockets", "disk", "vmm"), spec=to_json(spec))
    make_socket_folder(spec.runtime)
    chain.link(frozen.spec.drives, home, root)
    chain.make_overlays(spec)
    return spec


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)
