# SPDX-License-Identifier: Apache-2.0
"""A machine on the disk: its memory and devices in a file of the session's, its VMM gone.

    paused -> written to memory.new, synced, renamed -> the record says `saved` -> the VMM is ended
    its digest is right -> a VMM has loaded it -> the record says `paused` -> the file is removed

Up to the record's change the old VMM may run on, and after it never again: so a machine lives once,
whenever its keeper dies. What was saved goes with the disk as it was then; it is of no use once the
machine has run on, and so is removed before its first instruction.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from bugbox.errors import HostError, OutOfResources, StateError
from bugbox.host.bridge import held, in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.state import State
from bugbox.session.description import from_json
from bugbox.session.provision import Host
from bugbox.session.reaper import end_vmm, place_of
from bugbox.session.record import Ledger
from bugbox.session.vmm_user import make_socket_folder
from bugbox.storage.disks.choose import by_name
from bugbox.storage.file import require_free

__all__ = ["SAVED", "drop", "load", "save", "tidy"]

#: What a record says of such a machine.
SAVED = "saved"
#: What saving may take of the disk beside the memory.
_ROOM = 64 << 20
_CHUNK = 1 << 20
#: What must be the same when it is loaded: a VMM's own words for its devices are no standard.
_TRAITS = ("vmm", "cpu")


async def save(
    ledger: Ledger, machine: Machine, host: Host, why: str, gone: Callable[[], Awaitable[None]]
) -> None:
    """Write a paused machine to the session's folder and end its VMM, by calling `gone`.

    On failure it is paused as before, and nothing is left. OutOfResources: no room on the disk.
    """
    path = ledger.paths.memory
    new = path.with_name(f"{path.name}.new")
    need = (machine.spec.mem_mib << 20) + _ROOM
    await in_thread(require_free, path.parent, need, f"saving {ledger.record.id}")
    traits = await host.driver.traits(machine.spec)
    try:
        size, digest = await _write(machine, new)
        await in_thread(_settle, new, path)
        saved = {"size": size, "sha256": digest, **{name: traits.get(name, "") for name in _TRAITS}}
        await in_thread(ledger.write, state=SAVED, reason=why, saved=saved)
    except BaseException as error:
        for each in (new, path):
            each.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfResources(
                f"the disk is full: {ledger.record.id} was not saved, and is as it was",
                hint=f"free {need >> 20} MiB in {path.parent}",
            ) from error
        raise
    await shielded(gone)


async def load(ledger: Ledger, host: Host) -> Machine:
    """Start a VMM with what was saved; it is paused then. StateError: it cannot be had again."""
    record, path = ledger.record, ledger.paths.memory
    spec = from_json(record.spec)
    async with held(_opened(path, ledger)) as fd:
        traits = await host.driver.traits(spec)
        other = [name for name in _TRAITS if record.saved.get(name) != traits.get(name, "")]
        if other:
            what = {"vmm": "another QEMU", "cpu": "another CPU"}
            raise _lost(ledger, f"this host has {what[other[0]]} than it was saved with")
        await in_thread(end_vmm, ledger.paths, record.process)
        await in_thread(by_name(record.disk).bring_back, place_of(ledger.paths))
        await in_thread(make_socket_folder, spec.runtime)
        machine = await host.driver.restore(spec, fd, ledger.process_started)
    try:
        await in_thread(ledger.write, state=str(State.PAUSED), saved={})
    except BaseException:
        # It has not run, so what was saved is still true.
        await shielded(lambda: machine.stop(0.0))
        raise
    with contextlib.suppress(OSError):
        await in_thread(path.unlink, missing_ok=True)
    return machine


def drop(ledger: Ledger) -> None:
    """Let what was saved be of the past: the machine is booted, or ended."""
    # First: without it nobody loads it, whatever the record says.
    ledger.paths.memory.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        ledger.write(state=str(State.OFF), saved={})


def tidy(ledger: Ledger) -> None:
    """Remove what a keeper that died had begun to write."""
    path = ledger.paths.memory
    path.with_name(f"{path.name}.new").unlink(missing_ok=True)
    if ledger.record.state != SAVED:
        path.unlink(missing_ok=True)


async def _write(machine: Machine, new: Path) -> tuple[int, str]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600)
    try:
        size, digest = await machine.suspend(fd)
        await in_thread(os.fsync, fd)
        return size, digest
    finally:
        os.close(fd)


def _settle(new: Path, path: Path) -> None:
    """Put the file into its place, and see that it and the disks beside it are on the disk."""
    new.rename(path)
    for each in path.parent.iterdir():
        if each.suffix in (".qcow2", ".raw") and each.is_file() and not each.is_symlink():
            _sync(each, os.O_RDONLY)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: Path, ledger: Ledger) -> Iterator[int]:
    """Open what was saved, once every byte of it was looked at."""
    saved = ledger.record.saved
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _lost(ledger, f"{path} is gone") from None
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
    try:
        size = os.fstat(fd).st_size
        if size != saved.get("size"):
            raise _lost(ledger, f"{path} has {size} bytes, and was {saved.get('size')} bytes long")
        hasher, offset = hashlib.sha256(), 0
        while data := os.pread(fd, _CHUNK, offset):
            hasher.update(data)
            offset += len(data)
        if hasher.hexdigest() != saved.get("sha256"):
            raise _lost(ledger, f"{path} is not what was saved")
        yield fd
    finally:
        os.close(fd)


def _lost(ledger: Ledger, why: str) -> StateError:
    id = ledger.record.id
    return StateError(
        f"{id} cannot be loaded: {why}",
        hint=f"its disk is there: bugbox resume {id} --cold boots it, without what was in its "
        f"memory; bugbox reset {id} makes it afresh",
    )
