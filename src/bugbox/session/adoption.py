# SPDX-License-Identifier: Apache-2.0
"""Take over a session whose keeper died: the machine ran on, only its sockets have no owner."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from bugbox.config import Settings
from bugbox.errors import BugboxError, NotFound
from bugbox.host.bridge import in_thread
from bugbox.machine.driver import Machine
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session.description import from_json
from bugbox.session.drivers import choose
from bugbox.session.plan import Plan, of_image, of_puzzle
from bugbox.session.provision import Host
from bugbox.session.reaper import end_vmm
from bugbox.session.record import Ledger, Phase, Record, take_over
from bugbox.session.saving import SAVED, tidy
from bugbox.session.session import Session, Spawn

__all__ = ["adopt"]

log = logging.getLogger(__name__)


async def adopt(home: Home, settings: Settings, id: str, spawn: Spawn) -> Session | None:
    """Lock a session that was handed over and take its machine; None when it is not for us."""
    try:
        ledger = await in_thread(take_over, home, id)
    except NotFound:  # removed since we looked
        return None
    if ledger is None:
        return None
    if ledger.record.phase is not Phase.HANDED_OVER:
        ledger.close()
        return None
    try:
        host = Host(
            home=home, settings=settings, driver=choose(home, settings, ledger.record.driver)
        )
        plan = await in_thread(_plan, ledger.record)
        machine = await _machine(host, ledger)
    except BaseException:
        ledger.close()
        raise
    return Session(ledger, plan, host, machine, spawn)


async def _machine(host: Host, ledger: Ledger) -> Machine | None:
    """Adopt the VMM; None, with the reason in the record, when it is gone."""
    process = ledger.record.process
    await in_thread(tidy, ledger)
    why = "the host was restarted" if ledger.record.pid and process is None else "its VMM is gone"
    if ledger.record.fresh:
        # Nobody knows how far its making went; resume boots it and breaks it again.
        why = "it was being made when its keeper died"
        await in_thread(end_vmm, ledger.paths, process)
    elif ledger.record.state == SAVED:
        # What still runs was saved, or was to be loaded: it must not go on beside the file.
        await in_thread(end_vmm, ledger.paths, process)
        return None
    elif process is not None and process.alive:
        try:
            return await host.driver.adopt(from_json(ledger.record.spec), process)
        except BugboxError as error:
            log.warning("%s: %s", ledger.record.id, error)
            why = error.message
    if ledger.record.state != State.OFF:
        await in_thread(ledger.write, state=str(State.FAILED), reason=why)
    return None


def _plan(record: Record) -> Plan:
    """Read the puzzle again; a machine whose puzzle cannot be read is kept as a bare one."""
    if record.folder:
        try:
            puzzle = load_puzzle(Path(record.folder))
            return replace(of_puzzle(puzzle, known=record.variants), kernel=record.kernel)
        except BugboxError as error:
            log.warning("%s: its puzzle cannot be read: %s", record.id, error)
    return replace(of_image(record.puzzle, record.layer), kernel=record.kernel)
