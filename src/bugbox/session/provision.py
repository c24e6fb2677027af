# SPDX-License-Identifier: Apache-2.0
"""THE MAIN PATH: from a puzzle to a machine somebody can work in.

Read `provision`, `bring_up`, `power_on` and `make_ready` from top to bottom. Everything taken is
written into the session's record before it is taken, and given back by session.reaper when any step
fails, whether that step raised, was cancelled, or died with the whole process.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from bugbox.config import Settings
from bugbox.events import step
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.driver import Driver, Machine
from bugbox.machine.spec import Drive, Kernel, MachineSpec
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.session.description import from_json, to_json
from bugbox.session.logs import console_tail
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.ready import Boot, log_in, run_script, wait_for_ready_script, wait_for_systemd
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, Phase, claim
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.vmm_user import make_socket_folder, own_uid
from bugbox.storage.disk import check_free, create_overlay

__all__ = ["Host", "boot_same_disk", "bring_up", "make_ready", "power_on", "provision"]

#: What a session's disk needs at the very start; it grows as the guest writes.
_DISK_START_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every session is made with, chosen once at the edge."""

    home: Home
    settings: Settings
    driver: Driver


async def provision(
    plan: Plan, parts: Prepared, host: Host, watch: Stopwatch
) -> tuple[Ledger, Machine]:
    """Give `plan` a machine of its own; take everything back if any step fails."""
    async with AsyncExitStack() as undo:
        ledger = await in_thread(
            claim,
            host.home,
            plan.name,
            folder=str(plan.folder or ""),
            title=plan.title,
            user=plan.user,
            driver=host.driver.name,
            started=time.time(),
        )
        undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
        machine = await bring_up(ledger, plan, parts, host, watch)
        undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        await in_thread(ledger.write, phase=Phase.HANDED_OVER, timings_ms=watch.as_ms())
        undo.pop_all()
        return ledger, machine


async def bring_up(
    ledger: Ledger, plan: Plan, parts: Prepared, host: Host, watch: Stopwatch
) -> Machine:
    """Boot a fresh machine for a session, on a fresh disk, until it is ready."""
    async with AsyncExitStack() as undo:
        machine = await power_on(ledger, plan, parts, host, watch)
        undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        await make_ready(machine, ledger, plan, host.settings, watch, new=True)
        undo.pop_all()
        return machine


async def power_on(
    ledger: Ledger, plan: Plan, parts: Prepared, host: Host, watch: Stopwatch
) -> Machine:
    """Start a fresh machine for a session, on a fresh disk; it boots when this returns."""
    spec = await in_thread(_spec, ledger, plan, parts, host)
    await in_thread(ledger.write, fresh=True, boots=0, state=str(State.BOOTING), reason="")
    with watch.stage("disk"), step("Disk"):
        await in_thread(ledger.hold, "sockets")
        await in_thread(make_socket_folder, spec.runtime)
        await in_thread(ledger.hold, "disk")
        await in_thread(_make_disk, spec, plan.disk_bytes)
    with watch.stage("vmm"), step("Boot"):
        await in_thread(ledger.hold, "vmm")
        await in_thread(ledger.write, spec=to_json(spec))
        return await host.driver.boot(spec, ledger.process_started)


async def boot_same_disk(ledger: Ledger, plan: Plan, host: Host, watch: Stopwatch) -> Machine:
    """Boot a session again whose VMM is gone: same disk, same identity."""
    async with AsyncExitStack() as undo:
        spec = from_json(ledger.record.spec)
        await in_thread(make_socket_folder, spec.runtime)
        with watch.stage("vmm"), step("Boot"):
            machine = await host.driver.boot(spec, ledger.process_started)
            undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        new = ledger.record.fresh
        await make_ready(machine, ledger, plan, host.settings, watch, new=new)
        undo.pop_all()
        return machine


async def make_ready(
    machine: Machine,
    ledger: Ledger,
    plan: Plan,
    settings: Settings,
    watch: Stopwatch,
    *,
    new: bool,
) -> None:
    """Follow a boot to its end. `new`: nobody has worked here yet, so break it and look at it."""
    with watch.stage("kernel"):
        await machine.wait_lifeline()
    boot = Boot(
        lifeline=machine.lifeline,
        console=lambda: console_tail(ledger.paths),
        deadline=asyncio.get_running_loop().time() + plan.boot_timeout * settings.timeout_factor,
        factor=settings.timeout_factor,
    )
    if not plan.guest_client:
        await machine.lifeline.guest_client(False)
    with watch.stage("systemd"), step("Start services"):
        degraded = await wait_for_systemd(boot)
    scripts = [plan.boot, plan.break_, plan.session] if new else [plan.boot]
    with watch.stage("scripts"):
        for script in filter(None, scripts):
            await run_script(boot, script)
        if any(scripts):
            degraded = await wait_for_systemd(boot)
    if degraded and plan.puzzle is None:
        raise boot.failed(f"units failed: {', '.join(degraded)}")
    if plan.ready and new:
        with watch.stage("ready"), step("Wait for ready.sh"):
            await wait_for_ready_script(boot, plan.ready)
    with watch.stage("login"), step("Log in"):
        await log_in(boot, plan.user)
    await machine.reached(State.READY)
    await in_thread(
        ledger.write,
        state=str(State.READY),
        reason="",
        degraded=degraded,
        fresh=False,
        boots=ledger.record.boots + 1,
        guest_boot=hello.boot_id if (hello := machine.lifeline.hello) else "",
    )


def _spec(ledger: Ledger, plan: Plan, parts: Prepared, host: Host) -> MachineSpec:
    paths = ledger.paths
    below = Drive(id="base", path=parts.image.rootfs, format="raw", read_only=True)
    if parts.layer:
        below = Drive(
            id="layer", path=parts.layer.disk, format="qcow2", read_only=True, backing=below
        )
    return MachineSpec(
        id=ledger.record.id,
        kernel=Kernel(
            vmlinux=parts.kernel.vmlinux, initrd=parts.initrd, release=parts.kernel.release
        ),
        drives=(Drive(id="root", path=paths.disk, format="qcow2", backing=below),),
        vcpus=plan.vcpus,
        mem_mib=plan.mem_mib,
        root=paths.root,
        runtime=paths.runtime,
        uid=own_uid(host.home, host.settings, ledger.record.id),
        boot_timeout=plan.boot_timeout * host.settings.timeout_factor,
    )


def _make_disk(spec: MachineSpec, size_bytes: int) -> None:
    root = spec.drives[0]
    assert root.backing is not None
    check_free(root.path.parent, _DISK_START_BYTES)
    root.path.unlink(missing_ok=True)
    create_overlay(
        root.path,
        backing=root.backing.path,
        backing_format=root.backing.format,
        size_bytes=size_bytes,
    )
