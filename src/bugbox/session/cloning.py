# SPDX-License-Identifier: Apache-2.0
"""Clones where there is a template, cold boots elsewhere; and templates for the next time.

Held by whoever makes sessions. A template is adopted once (all of it is read and its digests are
checked) and stays open for the next clone; before each clone only its files' numbers are looked
at. A clone that fails makes its template suspect, is said once, and the session is booted instead.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import anyio

from bugbox.config import Settings
from bugbox.errors import BugboxError, GuestError, HostError
from bugbox.events import notice
from bugbox.host.bridge import in_thread
from bugbox.machine.driver import Machine
from bugbox.machine.template import key_of
from bugbox.paths import Home, SessionPaths
from bugbox.puzzle.definition import Puzzle
from bugbox.session import maker, template
from bugbox.session.builder import alone
from bugbox.session.clone import clone_up
from bugbox.session.drivers import choose
from bugbox.session.plan import Plan, of_image, of_puzzle
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host, bring_up, spec_of
from bugbox.session.record import Ledger
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Adopted, Stored

__all__ = ["Cloning", "ingredients", "warm"]

log = logging.getLogger(__name__)

#: Templates whose memory is kept at hand; the one cloned longest ago is let go of.
_ADOPTED = 4
#: Seconds until a template that could not be made is tried again.
_PATIENCE = 600.0


class Cloning:
    """The templates that this process has at hand."""

    def __init__(self, home: Home) -> None:
        self.home = home
        #: By key, the one used last at the end.
        self._adopted: dict[str, Adopted] = {}
        self._adopting = anyio.Lock()
        self._making = anyio.Lock()
        #: Keys of templates that could not be made, and when: not tried again at every start.
        self._hopeless: dict[str, float] = {}

    def close(self) -> None:
        """Let go of all of them."""
        for adopted in self._adopted.values():
            adopted.close()
        self._adopted.clear()

    async def bring(
        self, ledger: Ledger, plan: Plan, parts: Prepared, host: Host, watch: Stopwatch
    ) -> Machine:
        """Make a session's machine: a clone if there is a template, which the record then names."""
        if ledger.record.disk != "qcow2" or not plan.clonable:
            return await bring_up(ledger, plan, parts, host, watch)
        with watch.stage("template"):
            of = await self.at_hand(plan, parts, host)
        if of is not None:
            try:
                return await clone_up(ledger, plan, parts, host, watch, of)
            except (GuestError, HostError) as error:
                await self.failed(of, error)
        return await bring_up(ledger, plan, parts, host, watch)

    async def make(self, plan: Plan, parts: Prepared, host: Host) -> Stored | None:
        """Make the template of `plan` unless there is one; None where that cannot be.

        It cannot where the driver does not clone, and for a while after it has failed.
        """
        if not host.driver.abilities.clone:
            return None
        mixed = await ingredients(plan, parts, host)
        key = key_of(mixed)
        # One at a time in one process, so that learners' machines come first; and once in all.
        async with self._making, alone(self.home, "template", f"the template of {plan.name}"):
            found = await in_thread(template.find, self.home, key)
            if found is None and anyio.current_time() < self._hopeless.get(key, 0.0):
                return None
            if found is None:
                try:
                    found = await maker.make(key, mixed, plan, parts, host)
                except BugboxError:
                    self._hopeless[key] = anyio.current_time() + _PATIENCE
                    raise
                space = host.settings.templates_space << 20
                await in_thread(template.collect, self.home, space, found.name)
            return found

    async def at_hand(self, plan: Plan, parts: Prepared, host: Host) -> Adopted | None:
        """Return the template that a machine of `plan` may be cloned from; None: there is none."""
        if not host.driver.abilities.clone:
            return None
        key = key_of(await ingredients(plan, parts, host))
        async with self._adopting:
            known = self._adopted.pop(key, None)
            if known is not None and not known.intact:
                known.close()
                known = None
            if known is None:
                known = await self._adopt(key)
            if known is not None:
                self._adopted[key] = known
                while len(self._adopted) > _ADOPTED:
                    self._adopted.pop(next(iter(self._adopted))).close()
            return known

    async def _adopt(self, key: str) -> Adopted | None:
        found = await in_thread(template.find, self.home, key)
        if found is None:
            return None
        try:
            return await in_thread(template.adopt, found)
        except (HostError, OSError) as error:
            await in_thread(template.suspect, found, str(error))
            notice(f"{error}; the machine is booted instead")
            return None

    async def failed(self, of: Adopted, error: BugboxError) -> None:
        """Let nobody clone from it again: a clone of it did not become ready."""
        log.warning("a clone of %s failed: %s (%s)", of.stored.name, error.message, error.detail)
        await in_thread(template.suspect, of.stored, error.message)
        notice(f"the clone failed and is gone ({error.message}); the machine is booted instead")


async def warm(home: Home, settings: Settings, wanted: Puzzle | str, parts: Prepared) -> bool:
    """Make the template of a puzzle or an image; False where machines cannot be cloned."""
    plan = of_puzzle(wanted) if isinstance(wanted, Puzzle) else of_image(wanted)
    host = Host(home=home, settings=settings, driver=choose(home, settings))
    cloning = Cloning(home)
    try:
        return await cloning.make(plan, parts, host) is not None
    finally:
        cloning.close()


async def ingredients(plan: Plan, parts: Prepared, host: Host) -> dict[str, str]:
    """Return everything that shapes the template of `plan`, each by a name."""
    layer = parts.layer.key if parts.layer else ""
    mixed = {
        "kernel": parts.kernel.digest,
        # Named by what is in it.
        "initrd": parts.initrd.name,
        "base": parts.image.digest,
        "layer": layer,
        "disk": str(plan.disk_bytes),
        "user": plan.user,
        "guest client": str(plan.guest_client),
        "driver": host.driver.name,
        "variants": json.dumps(plan.shared_env, sort_keys=True),
    }
    for name, script in (("boot", plan.boot), ("break", plan.break_), ("ready", plan.ready)):
        mixed[f"{name}.sh"] = hashlib.sha256(script.text).hexdigest() if script else ""
    mixed["session.sh"] = str(plan.session is not None)
    nowhere = SessionPaths(Path("/"), Path("/"))
    spec = spec_of(nowhere, plan, parts, host.settings, None)
    return mixed | await host.driver.traits(spec)
