# SPDX-License-Identifier: Apache-2.0
"""A machine for building a puzzle in: nothing runs but the lifeline, and nothing can be reached.

With `build.network` it reaches what the host does, where the host's owner allows that.

It is a session that is never handed over: its record says `making` from start to end, so whatever
happens to us, the reaper takes it back. /dev/vda is the base, read-only; /dev/vdb an empty scratch
disk; /dev/vdc the puzzle's disk over the base.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bugbox.config import Settings
from bugbox.errors import MachineLost, OutOfResources
from bugbox.events import step
from bugbox.host.bridge import in_thread, shielded
from bugbox.image.kernel import BuiltKernel
from bugbox.image.rootfs import BuiltImage
from bugbox.machine.driver import Driver, Machine
from bugbox.machine.spec import Drive, Kernel, MachineSpec, Nic
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.session.description import to_json
from bugbox.session.network import build_card
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, claim
from bugbox.session.vmm_user import make_socket_folder, own_uid
from bugbox.storage.disk import create_empty, create_overlay

__all__ = ["Parts", "boot", "build_machine", "open_record", "while_it_runs"]

T = TypeVar("T")

_MEM_MIB = 512
_BOOT_TIMEOUT = 60.0
#: States in which a build cannot go on.
_OVER = frozenset({State.REBOOTING, State.OFF, State.STALLED, State.STOPPED, State.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a layer is built with."""

    home: Home
    settings: Settings
    image: BuiltImage
    kernel: BuiltKernel
    initrd: Path
    driver: Driver


@asynccontextmanager
async def build_machine(
    parts: Parts, *, name: str, disk: Path, disk_bytes: int, online: bool = False
) -> AsyncIterator[Machine]:
    """Boot a build machine; end it in good order, or at once when the block fails."""
    async with AsyncExitStack() as undo:
        with step("Start the build machine"):
            ledger = await in_thread(open_record, parts, name, f"Building {name}")
            undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
            nics = build_card(name, parts.settings) if online else ()
            machine = await boot(parts, ledger, disk, disk_bytes, nics)
            undo.push_async_callback(shielded, lambda: machine.stop(0.0))
            await machine.wait_lifeline()
        yield machine
        await machine.stop()


def open_record(parts: Parts, name: str, title: str) -> Ledger:
    """Make the record of a build machine."""
    driver = parts.driver.name
    return claim(parts.home, f"build-{name}", title=title, driver=driver, started=time.time())


async def boot(
    parts: Parts, ledger: Ledger, disk: Path, disk_bytes: int, nics: tuple[Nic, ...] = ()
) -> Machine:
    """Start the machine of a record, and make what it takes; its lifeline is to be waited for."""
    spec = dataclasses.replace(_spec(ledger, parts, disk), nics=nics)
    spec = await in_thread(_make_room, parts, ledger, spec, disk, disk_bytes)
    return await parts.driver.boot(spec, ledger.process_started)


async def while_it_runs(machine: Machine, work: Coroutine[Any, Any, T]) -> T:
    """Do `work`; when the machine ends or cannot go on meanwhile, give up at once and say why."""
    task = asyncio.create_task(work)
    over: asyncio.Future[State] = asyncio.get_running_loop().create_future()

    def seen(state: State) -> None:
        if state in _OVER and not over.done():
            over.set_result(state)

    machine.watch(seen)
    seen(machine.state)
    try:
        either: list[asyncio.Future[Any]] = [task, over]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return await task
        if over.result() is State.STALLED:
            raise OutOfResources(
                "the disk of this host is full: the build machine cannot write",
                hint="free some space, or set BUGBOX_HOME to a folder on a larger disk",
            )
        raise MachineLost(f"the build machine is {over.result()}: {machine.reason or 'no reason'}")
    finally:
        task.cancel()
        over.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _spec(ledger: Ledger, parts: Parts, disk: Path) -> MachineSpec:
    below = Drive(id="base", path=parts.image.rootfs, format="raw", read_only=True)
    return MachineSpec(
        id=ledger.record.id,
        kernel=Kernel(
            vmlinux=parts.kernel.vmlinux,
            initrd=parts.initrd,
            release=parts.kernel.release,
            extra_args=("bugbox.init=none",),
        ),
        drives=(
            below,
            Drive(id="scratch", path=ledger.paths.disk, format="qcow2"),
            Drive(id="puzzle", path=disk, format="qcow2", backing=below),
        ),
        mem_mib=_MEM_MIB,
        root=ledger.paths.root,
        runtime=ledger.paths.runtime,
        boot_timeout=_BOOT_TIMEOUT * parts.settings.timeout_factor,
    )


def _make_room(
    parts: Parts, ledger: Ledger, spec: MachineSpec, disk: Path, disk_bytes: int
) -> MachineSpec:
    """Make both disks and the folder for sockets, each written down before."""
    uid = own_uid(parts.home, parts.settings, ledger.record.id)
    spec = dataclasses.replace(spec, uid=uid)
    ledger.hold("sockets")
    make_socket_folder(spec.runtime)
    ledger.hold("disk")
    create_empty(ledger.paths.disk, size_bytes=disk_bytes)
    base = parts.image.rootfs
    create_overlay(disk, backing=base, backing_format="raw", size_bytes=disk_bytes)
    ledger.write(holds=(*ledger.record.holds, "vmm"), spec=to_json(spec))
    return spec
