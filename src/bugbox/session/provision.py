# SPDX-License-Identifier: Apache-2.0
"""THE MAIN PATH: from a puzzle to a machine somebody can work in.

Read `provision`, `bring_up`, `power_on` and `make_ready` from top to bottom. Everything taken is
written into the session's record before it is taken, and given back by session.reaper when any step
fails, whether that step raised, was cancelled, or died with the whole process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bugbox.config import Settings
from bugbox.events import step
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.driver import Driver, Machine
from bugbox.machine.spec import Drive, Kernel, MachineSpec
from bugbox.machine.state import State
from bugbox.paths import Home, SessionPaths
from bugbox.puzzle.machine_keys import ExtraDisk
from bugbox.session.description import from_json, to_json
from bugbox.session.identity import introduce
from bugbox.session.logs import console_tail
from bugbox.session.network import card
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.ready import (
    Boot,
    log_in,
    run_script,
    wait_for_init,
    wait_for_network,
    wait_for_ready_script,
)
from bugbox.session.reaper import give_back, place_of
from bugbox.session.record import Ledger, Phase, claim
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Stored
from bugbox.session.vmm_user import make_socket_folder, own_uid
from bugbox.session.wires import JAIL
from bugbox.storage.disk import check_free, create_overlay
from bugbox.storage.disks.choose import by_name, choose
from bugbox.storage.disks.layout import Part, Source
from bugbox.storage.filesystem import make_empty

__all__ = [
    "Bring",
    "Host",
    "boot_same_disk",
    "bring_up",
    "make_ready",
    "open_record",
    "power_on",
    "provision",
    "ready_for_clone",
    "spec_of",
    "way_of",
]

#: Makes a session's machine, ready.
Bring = Callable[[Ledger, Plan, Prepared, "Host", Stopwatch], Awaitable[Machine]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What every session is made with, chosen once at the edge."""

    home: Home
    settings: Settings
    driver: Driver
    #: How a new session's disk is made: auto, or the name of a way.
    disk: str = "auto"


async def provision(
    plan: Plan, parts: Prepared, host: Host, watch: Stopwatch, bring: Bring | None = None
) -> tuple[Ledger, Machine]:
    """Give `plan` a machine of its own; take everything back if any step fails.

    `bring` makes the machine: `bring_up` boots one, session.cloning knows a quicker way.
    """
    async with AsyncExitStack() as undo:
        ledger = await in_thread(lambda: open_record(plan, parts, host, asked=True))
        undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
        machine = await (bring or bring_up)(ledger, plan, parts, host, watch)
        undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        # What dies with the host need not outlive it: a clone's disk is empty so far.
        sync = not ledger.record.template
        await in_thread(ledger.write, sync=sync, phase=Phase.HANDED_OVER, timings_ms=watch.as_ms())
        undo.pop_all()
        return ledger, machine


def open_record(plan: Plan, parts: Prepared, host: Host, *, asked: bool = False) -> Ledger:
    """Make a session's folder and record, with what is known before anything is taken.

    `asked`: somebody waits for this very session, and `ps` shows it while it is made.
    """
    return claim(
        host.home,
        plan.name,
        folder=str(plan.folder or ""),
        title=plan.title,
        user=plan.user,
        driver=host.driver.name,
        kernel=plan.kernel,
        disk=way_of(parts, host),
        asked=asked,
        started=time.time(),
        variants=dict(plan.values),
        layer=plan.layer,
    )


async def bring_up(
    ledger: Ledger,
    plan: Plan,
    parts: Prepared,
    host: Host,
    watch: Stopwatch,
    *,
    ram: int | None = None,
) -> Machine:
    """Boot a fresh machine for a session, on a fresh disk, until it is ready.

    With `ram`, a memory file, the machine can be saved.
    """
    async with AsyncExitStack() as undo:
        machine = await power_on(ledger, plan, parts, host, watch, ram=ram)
        undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        await make_ready(machine, ledger, plan, host.settings, watch, new=True)
        undo.pop_all()
        return machine


async def power_on(
    ledger: Ledger,
    plan: Plan,
    parts: Prepared,
    host: Host,
    watch: Stopwatch,
    *,
    ram: int | None = None,
) -> Machine:
    """Start a fresh machine for a session, on a fresh disk; it boots when this returns."""
    spec = await in_thread(_spec, ledger, plan, parts, host)
    await in_thread(
        ledger.write, fresh=True, boots=0, state=str(State.BOOTING), reason="", template=""
    )
    with watch.stage("disk"), step("Disk"):
        await in_thread(ledger.hold, "sockets")
        await in_thread(make_socket_folder, spec.runtime)
        await in_thread(ledger.hold, "disk")
        await in_thread(_make_disk, ledger, plan, parts)
    with watch.stage("vmm"), step("Boot"):
        if host.driver.abilities.jailed:
            await in_thread(ledger.hold, JAIL)
        await in_thread(ledger.hold, "vmm")
        await in_thread(ledger.write, spec=to_json(spec))
        return await host.driver.boot(spec, ledger.process_started, ram=ram)


async def boot_same_disk(ledger: Ledger, plan: Plan, host: Host, watch: Stopwatch) -> Machine:
    """Boot a session again whose VMM is gone: same disk, same identity."""
    async with AsyncExitStack() as undo:
        spec = from_json(ledger.record.spec)
        await in_thread(by_name(ledger.record.disk).bring_back, place_of(ledger.paths))
        await in_thread(make_socket_folder, spec.runtime)
        with watch.stage("vmm"), step("Boot"):
            if host.driver.abilities.jailed:  # the settings may say so only now
                await in_thread(ledger.hold, JAIL)
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
    limit = plan.boot_timeout * settings.timeout_factor
    boot = Boot(
        name=plan.name,
        lifeline=machine.lifeline,
        console=lambda: console_tail(ledger.paths),
        deadline=asyncio.get_running_loop().time() + limit,
        limit=limit,
        factor=settings.timeout_factor,
    )
    if not plan.guest_client:
        await machine.lifeline.guest_client(False)
    with watch.stage("systemd"), step("Start services"):
        degraded = await wait_for_init(boot)
        if machine.spec.nics:
            await wait_for_network(boot)
    if new:
        await introduce(machine.lifeline, ledger.record.id)
    scripts = [plan.boot, plan.break_, plan.session] if new else [plan.boot]
    with watch.stage("scripts"):
        for script in filter(None, scripts):
            env = plan.env if script is plan.session else plan.shared_env
            await run_script(boot, script, env=env)
        if any(scripts):
            degraded = await wait_for_init(boot)
    if degraded and plan.puzzle is None:
        raise boot.failed(f"units failed: {', '.join(degraded)}")
    if plan.ready and new:
        with watch.stage("ready"), step("Wait for ready.sh"):
            await wait_for_ready_script(boot, plan.ready, env=plan.env)
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


def way_of(parts: Prepared, host: Host) -> str:
    """Choose how the disk is made: what is asked for, or what fits the driver and this host."""
    way = choose(
        host.settings.disk if host.disk == "auto" else host.disk,
        base=parts.image.rootfs,
        folder=host.home.sessions,
        raw=not host.driver.abilities.qcow2,
    )
    return way.name


def _spec(ledger: Ledger, plan: Plan, parts: Prepared, host: Host) -> MachineSpec:
    uid = own_uid(host.home, host.settings, ledger.record.id)
    return spec_of(ledger.paths, plan, parts, host.settings, uid, ledger.record.disk)


def spec_of(
    paths: SessionPaths,
    plan: Plan,
    parts: Prepared,
    settings: Settings,
    uid: int | None,
    way: str = "qcow2",
) -> MachineSpec:
    """Describe a session's machine: its disk over the puzzle's, over the base image."""
    disk = by_name(way).layout(_source(plan, parts), place_of(paths))
    return MachineSpec(
        id=paths.root.name,
        kernel=Kernel(
            vmlinux=parts.kernel.vmlinux,
            initrd=parts.initrd,
            release=parts.kernel.release,
            extra_args=(*disk.kernel_args, *plan.kernel_args),
        ),
        drives=(
            *(_drive(part) for part in disk.parts),
            *(_carried(paths, name, image) for name, image in plan.carried),
            *(_extra(paths, disk) for disk in plan.disks),
        ),
        nics=card(plan, settings),
        vcpus=plan.vcpus,
        mem_mib=plan.mem_mib,
        root=paths.root,
        runtime=paths.runtime,
        uid=uid,
        boot_timeout=plan.boot_timeout * settings.timeout_factor,
    )


def _source(plan: Plan, parts: Prepared) -> Source:
    layer = parts.layer
    return Source(
        base=parts.image.rootfs,
        layer=layer.disk if layer else None,
        tar=layer.tar if layer else None,
        size_bytes=plan.disk_bytes,
    )


def ready_for_clone(
    ledger: Ledger, plan: Plan, parts: Prepared, host: Host, template: Stored
) -> MachineSpec:
    """Write down all that a clone takes, at once; then take its folder and its disk."""
    spec = _over(_spec(ledger, plan, parts, host), template)
    ledger.write(
        sync=False,
        fresh=True,
        boots=0,
        state=str(State.BOOTING),
        reason="",
        template=template.name,
        holds=("sockets", "disk", "vmm"),
        spec=to_json(spec),
    )
    make_socket_folder(spec.runtime)
    disk = spec.drives[0].path
    check_free(disk.parent)
    disk.unlink(missing_ok=True)
    shutil.copyfile(template.empty_disk, disk)
    return spec


def _over(spec: MachineSpec, template: Stored) -> MachineSpec:
    """Lay the session's disk over the template's in place of the puzzle's."""
    root = spec.drives[0]
    saved = Drive(
        id="template", path=template.disk, format="qcow2", read_only=True, backing=root.backing
    )
    root = dataclasses.replace(root, backing=saved)
    return dataclasses.replace(spec, drives=(root, *spec.drives[1:]))


def _drive(part: Part) -> Drive:
    return Drive(
        id=part.id,
        path=part.path,
        format=part.format,
        read_only=part.read_only,
        device=part.device,
        backing=_drive(part.backing) if part.backing else None,
    )


def _carried(paths: SessionPaths, name: str, image: Path) -> Drive:
    below = Drive(id=f"{name}-image", path=image, format="raw", read_only=True)
    return Drive(id=name, path=paths.root / f"{name}.qcow2", format="qcow2", backing=below)


def _extra(paths: SessionPaths, disk: ExtraDisk) -> Drive:
    return Drive(id=f"extra-{disk.name}", path=paths.root / f"extra-{disk.name}.raw", format="raw")


def _make_disk(ledger: Ledger, plan: Plan, parts: Prepared) -> None:
    by_name(ledger.record.disk).make(_source(plan, parts), place_of(ledger.paths))
    for name, image in plan.carried:
        path = ledger.paths.root / f"{name}.qcow2"
        path.unlink(missing_ok=True)
        create_overlay(path, backing=image, backing_format="raw")
    for disk in plan.disks:
        make_empty(
            _extra(ledger.paths, disk).path,
            size_bytes=disk.size,
            kind=disk.fs,
            label=disk.name,
            options=disk.mkfs,
        )
