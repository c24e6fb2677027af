# SPDX-License-Identifier: Apache-2.0
"""Make a template: boot a machine as for a session, save it when it is idle, try a clone, publish.

    a session's record, so that whoever finds our dead body gives all of it back
    ready, but for session.sh  ->  idle  ->  saved  ->  its VMM gone, its disk whole
    a clone of it is ready and answers  ->  it is moved to its place

Made by the keeper in the background, or by `bugbox build --warm`; two that want the same one make
it once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from bugbox.errors import GuestError
from bugbox.events import step
from bugbox.host.bridge import held, in_thread, shielded
from bugbox.host.proc import Process
from bugbox.machine.driver import Machine
from bugbox.machine.template import Manifest
from bugbox.session import template
from bugbox.session.clone import boot_of, clone_up
from bugbox.session.identity import clock_offset, host_keys, hostname
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host, bring_up
from bugbox.session.ready import sit_aside
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, claim
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Stored
from bugbox.storage import file, memory
from bugbox.storage.disk import create_overlay

__all__ = ["make"]

#: A guest that used less than so much of a CPU in each of so many looks, seconds apart, is idle:
#: what ends a few seconds after a boot (udev's workers, most of all) does not end in every clone.
_IDLE_SHARE, _IDLE_LOOKS, _IDLE_SECONDS = 0.1, 7, 0.5
_IDLE_TIMEOUT = 30.0
#: What a template takes of the disk, beside its memory.
_ROOM = 256 << 20


async def make(
    key: str, ingredients: dict[str, str], plan: Plan, parts: Prepared, host: Host
) -> Stored:
    """Make the template of `plan` and publish it; on failure nothing is left."""
    home = host.home
    need = (plan.mem_mib << 20) + _ROOM
    await in_thread(file.require_free, home.root, need, "a template")
    async with AsyncExitStack() as undo:
        space = await undo.enter_async_context(held(file.workspace(home.tmp, "template")))
        # Of its own: the workspace is locked, as what is being collected is.
        work = space / "template"
        work.mkdir(mode=0o700)
        ram = await in_thread(memory.create, f"bugbox {key}", plan.mem_mib << 20)
        undo.callback(os.close, ram)
        manifest, state = await _save(plan, parts, host, work, ram)
        manifest = dataclasses.replace(manifest, key=key, ingredients=ingredients)
        await in_thread((work / "state").write_bytes, state)
        await in_thread(_empty_disk, work, plan.disk_bytes)
        with step("Save the template"):
            stored = await in_thread(template.complete, work, home, manifest, ram)
        with step("Try a clone"):
            await _try(stored, plan, parts, host)
        return await in_thread(template.publish, stored, home)


async def _save(
    plan: Plan, parts: Prepared, host: Host, work: Path, ram: int
) -> tuple[Manifest, bytes]:
    """Boot, save and end a machine; its disk is then in `work`, its memory in `ram`, sealed."""
    async with _session(plan, host) as ledger:
        whole = dataclasses.replace(plan, template=True)
        machine = await bring_up(ledger, whole, parts, host, Stopwatch(), ram=ram)
        try:
            with step("Wait until it is idle"):
                # In a clone nothing is translated yet and a shell starts slowly; this one waits.
                shell = await sit_aside(boot_of(machine, ledger, plan, host), plan.user)
                await shell.close()
                await machine.lifeline.sync()
                manifest = await _describe(machine, ledger, plan, shell.id)
                await _until_idle(machine.process, host.settings.timeout_factor)
            state = await machine.save()
        finally:
            with anyio.CancelScope(shield=True):
                await machine.stop(0.0)
        await in_thread(memory.seal, ram)
        await in_thread(ledger.paths.disk.rename, work / "disk.qcow2")
        return manifest, state


async def _describe(machine: Machine, ledger: Ledger, plan: Plan, login: str) -> Manifest:
    name = await hostname(machine.lifeline)
    kinds = await host_keys(machine.lifeline)
    return Manifest(
        key="",
        name=plan.name,
        mem_mib=plan.mem_mib,
        # The last that is asked, and without a child: what the agent will write to first in a
        # clone is its own again, and no page has to be copied for it.
        clock_offset_ns=await clock_offset(machine.lifeline),
        hostname="" if name == ledger.record.id else name,
        host_keys=kinds,
        login=login,
        degraded=ledger.record.degraded,
        made=time.time(),
    )


async def _until_idle(process: Process, factor: float) -> None:
    """Wait until the guest's CPU is quiet; one that never is gets saved at work."""
    most = _IDLE_SHARE * _IDLE_SECONDS * os.sysconf("SC_CLK_TCK")
    quiet = 0
    with anyio.move_on_after(_IDLE_TIMEOUT * factor):
        while quiet < _IDLE_LOOKS:
            before = process.cpu_ticks()
            await anyio.sleep(_IDLE_SECONDS)
            quiet = quiet + 1 if process.cpu_ticks() - before <= most else 0


async def _try(stored: Stored, plan: Plan, parts: Prepared, host: Host) -> None:
    adopted = await in_thread(template.adopt, stored)
    try:
        async with _session(plan, host) as ledger:
            machine = await clone_up(ledger, plan, parts, host, Stopwatch(), adopted)
            await shielded(lambda: machine.stop(0.0))
    except GuestError as error:
        error.hint = "the template was not published; machines are booted"
        raise
    finally:
        adopted.close()


@contextlib.asynccontextmanager
async def _session(plan: Plan, host: Host):  # type: ignore[no-untyped-def]
    ledger = await in_thread(
        claim, host.home, plan.name, title="a template", driver=host.driver.name
    )
    try:
        yield ledger
    finally:
        await shielded(lambda: in_thread(give_back, ledger))


def _empty_disk(work: Path, size_bytes: int) -> None:
    create_overlay(
        work / "clone.qcow2",
        backing=work / "disk.qcow2",
        backing_format="qcow2",
        size_bytes=size_bytes,
    )
