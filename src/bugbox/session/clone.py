# SPDX-License-Identifier: Apache-2.0
"""The quick path: a session's machine as a clone of one that was ready before.

    a disk of its own over the template's  ->  a VMM where the template was saved  ->  entropy
    an answer as the learner  ->  rejuvenation, or the end of the clone

With a session.sh, which sees who the machine is and may change what a shell does, the answer comes
last.

The machine is in the state BOOTING until all of it is done, so nobody gets in earlier. Whatever
fails, the clone is gone, and whoever called decides; see session.cloning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bugbox.errors import GuestError
from bugbox.events import step
from bugbox.host.bridge import held, in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.state import State
from bugbox.session.identity import Identity, rejuvenate, stir
from bugbox.session.logs import console_tail
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host, ready_for_clone
from bugbox.session.ready import Boot, answer, come_back, run_script, wait_for_ready_script
from bugbox.session.record import Ledger
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Adopted, Stored

__all__ = ["boot_of", "clone_up"]

#: Seconds to wake up, and to get an identity; mostly each is a small fraction of one.
_WAKE_TIMEOUT = 20.0


async def clone_up(
    ledger: Ledger, plan: Plan, parts: Prepared, host: Host, watch: Stopwatch, of: Adopted
) -> Machine:
    """Make a session's machine from a template until it is ready; on failure it is gone."""
    async with AsyncExitStack() as undo:
        await undo.enter_async_context(held(of.leased()))
        with watch.stage("disk"):
            spec = await in_thread(ready_for_clone, ledger, plan, parts, host, of.stored)
        with watch.stage("vmm"), step("Clone"):
            machine = await host.driver.clone(spec, of.snapshot, ledger.process_started)
            undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        boot = boot_of(machine, ledger, plan, host)
        limit = _WAKE_TIMEOUT * host.settings.timeout_factor
        with watch.stage("wake"):
            async with _limited("wake up", limit):
                await machine.wait_lifeline()
                await stir(machine.lifeline)
        # A new name and a new time wake half of the guest's services, none of them translated. So
        # a shell that no script can change any more answers before.
        if not plan.session:
            await _answered(boot, watch, of.stored)
        with watch.stage("identity"):
            async with _limited("get its identity", limit):
                who = _identity(ledger, of.stored, bool(spec.nics))
                await rejuvenate(machine.lifeline, who, stirred=True)
        if plan.session:
            await _run_session(boot, plan, watch)
            await _answered(boot, watch, of.stored)
        await _is_ready(machine, ledger, of.stored)
        undo.pop_all()
        return machine


@asynccontextmanager
async def _limited(what: str, limit: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise GuestError(f"the clone did not {what} within {limit:g} s") from None


async def _run_session(boot: Boot, plan: Plan, watch: Stopwatch) -> None:
    assert plan.session is not None
    with watch.stage("scripts"):
        await run_script(boot, plan.session, env=plan.env)
    if plan.ready:
        with watch.stage("ready"):
            await wait_for_ready_script(boot, plan.ready, env=plan.env)


async def _answered(boot: Boot, watch: Stopwatch, of: Stored) -> None:
    with watch.stage("login"):
        await answer(boot, await come_back(boot, of.manifest.login))


async def _is_ready(machine: Machine, ledger: Ledger, of: Stored) -> None:
    await machine.reached(State.READY)
    hello = machine.lifeline.hello
    await in_thread(
        ledger.write,
        sync=False,
        state=str(State.READY),
        reason="",
        degraded=of.manifest.degraded,
        fresh=False,
        boots=1,
        guest_boot=hello.boot_id if hello else "",
    )


def boot_of(machine: Machine, ledger: Ledger, plan: Plan, host: Host) -> Boot:
    """Return what session.ready needs of a machine: how to ask it, and for how long."""
    factor = host.settings.timeout_factor
    limit = plan.boot_timeout * factor
    return Boot(
        name=plan.name,
        lifeline=machine.lifeline,
        console=lambda: console_tail(ledger.paths),
        deadline=asyncio.get_running_loop().time() + limit,
        limit=limit,
        factor=factor,
    )


def _identity(ledger: Ledger, template: Stored, network: bool) -> Identity:
    manifest = template.manifest
    return Identity(
        hostname="" if manifest.hostname else ledger.record.id,
        clock_offset_ns=manifest.clock_offset_ns,
        host_keys=manifest.host_keys,
        network=network,
    )
