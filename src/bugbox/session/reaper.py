# SPDX-License-Identifier: Apache-2.0
"""Give back what a session holds: at its end, after a failed start, and after somebody's death.

One function does all three, driven by the record alone, so the way that a test walks on every
failed step is the way that `gc` walks after `kill -9`. Each step may be repeated.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

from bugbox.errors import BugboxError, NotFound, StateError
from bugbox.host.proc import Process, start_time
from bugbox.image.docker import Engine
from bugbox.paths import Home, SessionPaths
from bugbox.session import wires
from bugbox.session.record import Ledger, Phase, abandoned, ids, take_over
from bugbox.storage.disks.choose import by_name
from bugbox.storage.disks.layout import Place

__all__ = [
    "CONTAINER",
    "collect",
    "container_name",
    "end_vmm",
    "give_back",
    "give_back_soon",
    "place_of",
]

log = logging.getLogger(__name__)

#: What a record holds when an engine has a container of ours; its `spec` says which engine.
CONTAINER = "container"

_KILL_TIMEOUT = 10.0


def place_of(paths: SessionPaths) -> Place:
    """Return where a session's own half of its disk lies, and how its devices are named."""
    return Place(folder=paths.root, tag=f"bugbox-{paths.runtime.parent.name}-{paths.root.name}")


def give_back(ledger: Ledger) -> None:
    """End the machine, remove its sockets and its folder, in that order; let go of the lock.

    Of a ledger that is closed nothing is ours: it is gone already, or somebody else's.
    """
    if not give_back_soon(ledger):
        return
    if CONTAINER in ledger.record.holds:
        Engine(env=ledger.record.spec["engine"]).remove(container_name(ledger.record.id))
    end_vmm(ledger.paths, ledger.record.process)
    wires.give_back(ledger.paths, ledger.record.holds)
    if "disk" in ledger.record.holds:
        by_name(ledger.record.disk).give_back(place_of(ledger.paths))
    shutil.rmtree(ledger.paths.runtime, ignore_errors=True)
    _remove(ledger.paths)
    ledger.close()


def container_name(id: str) -> str:
    """Return the name of the container that a build has."""
    return f"bugbox-{id}"


def give_back_soon(ledger: Ledger) -> bool:
    """Write down that the session ends: whatever becomes of us, the reaper goes on with it.

    False when it is not ours to end.
    """
    try:
        ledger.write(phase=Phase.ENDING)
    except StateError:
        return False
    except OSError as error:  # a full disk must not keep us from emptying it
        log.warning("%s: %s", ledger.record.id, error)
    return True


def end_vmm(paths: SessionPaths, process: Process | None) -> None:
    """Kill a session's VMM, and any that was started but not written down yet."""
    for each in [*([process] if process else []), *_strays(paths)]:
        each.kill()
        if not each.wait_gone(_KILL_TIMEOUT):
            raise StateError(f"process {each.pid} does not end", hint="look at it with ps")


def collect(home: Home) -> list[str]:
    """Finish what dead processes left half-made or half-ended; return what was removed.

    A session that was handed over is never touched: its owner ends it. Nor is one that somebody
    has locked.
    """
    removed = []
    for id in ids(home):
        if _collect_one(home, id):
            removed.append(id)
    for folder in _orphaned_sockets(home):
        try:
            end_vmm(home.session(folder.name), None)
        except StateError as error:
            log.warning("the sockets of %s cannot be removed yet: %s", folder.name, error)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(f"sockets of {folder.name}")
    return removed + wires.sweep(home)


def _collect_one(home: Home, id: str) -> bool:
    try:
        ledger = take_over(home, id)
    except (NotFound, StateError) as error:
        return _collect_without_record(home, id, isinstance(error, NotFound))
    if ledger is None:
        return False
    if ledger.record.phase is Phase.HANDED_OVER:
        ledger.close()
        return False
    log.info("giving back %s, left %s by a process that died", id, ledger.record.phase)
    try:
        give_back(ledger)
    except BugboxError as error:  # an engine that does not answer, a process that does not end
        log.warning("%s cannot be given back yet: %s", id, error)
        ledger.close()
        return False
    return True


def _collect_without_record(home: Home, id: str, never_written: bool) -> bool:
    """Remove a folder whose maker died before its first record. One we cannot read stays."""
    if not never_written:
        log.warning("%s: the record cannot be read; remove the folder by hand", id)
        return False
    with abandoned(home, id) as ours:
        if not ours or home.session(id).record.exists():
            return False
        paths = home.session(id)
        try:
            end_vmm(paths, None)
        except StateError as error:
            log.warning("%s cannot be given back yet: %s", id, error)
            return False
        shutil.rmtree(paths.runtime, ignore_errors=True)
        _remove(paths)
        return True


def _orphaned_sockets(home: Home) -> list[Path]:
    try:
        folders = [entry for entry in home.runtime.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return []
    return [folder for folder in folders if not home.session(folder.name).root.is_dir()]


def _strays(paths: SessionPaths) -> list[Process]:
    """Processes that write into this very session's VMM log, as only its VMM does.

    Between a VMM's start and the writing of its pid there is a moment; this closes it.
    """
    names = {str(paths.vmm_log), f"{paths.vmm_log} (deleted)"}
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(entry / "fd" / "1") in names:  # noqa: PTH115 (it may be deleted)
                started = start_time(int(entry.name))
                if started is not None:
                    found.append(Process(pid=int(entry.name), started=started))
    return found


def _remove(paths: SessionPaths) -> None:
    """Remove a session's folder, its record and lock last: until then it can be found."""
    last = {paths.record.name, paths.lock.name}
    with contextlib.suppress(FileNotFoundError):
        for entry in list(paths.root.iterdir()):
            if entry.name in last:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    paths.record.unlink(missing_ok=True)
    paths.lock.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        paths.root.rmdir()
