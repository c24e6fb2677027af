# SPDX-License-Identifier: Apache-2.0
"""Device mapper: block devices put together from parts of others, by `dmsetup`.

A device's table is a list of targets, each a run of sectors of 512 bytes; those are pure values. A
device lasts until it is removed: no process's end takes it back. So its name says whose it is, the
name is in that session's record before the device is made, and `names` finds them all again.

Where udev runs, dmsetup waits for it by a cookie, so that no rule of its is still at work on a
device that we go on to use or remove. Where it does not, dmsetup makes the nodes itself.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import CommandFailed, HostError, MissingPrivilege
from bugbox.host import proc

__all__ = [
    "CHUNK",
    "SECTOR",
    "Usage",
    "create",
    "created",
    "linear",
    "names",
    "node",
    "origin",
    "remove",
    "require",
    "resume",
    "snapshot",
    "store_bytes",
    "suspend",
    "table",
    "thin",
    "thin_pool",
    "usage",
    "zero",
]

SECTOR = 512
#: What a snapshot copies at a time, in sectors: 4 KiB, the size of a guest's own blocks.
CHUNK = 8
#: Where a snapshot's store keeps which chunk is where: so many to a chunk.
_ENTRIES = CHUNK * SECTOR // 16

_TIMEOUT = 60.0
_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,127}")

Target = tuple[int, str]
"""Length in sectors, and the rest of its line in the table."""


def linear(sectors: int, device: Path, start: int = 0) -> Target:
    """A run of another device, from its sector `start` on."""
    return sectors, f"linear {device} {start}"


def zero(sectors: int) -> Target:
    """Zeros to read; what is written is lost."""
    return sectors, "zero"


def snapshot(sectors: int, below: Path, store: Path) -> Target:
    """What `below` holds, and over it what was written, which goes to `store`."""
    return sectors, f"snapshot {below} {store} P {CHUNK}"


def origin(sectors: int, device: Path) -> Target:
    """A device whose old contents are copied to its snapshots before it is written."""
    return sectors, f"snapshot-origin {device}"


def thin_pool(
    sectors: int, metadata: Path, data: Path, *, block_sectors: int = 128, low_water: int = 0
) -> Target:
    """A pool of blocks for thin devices; an event comes when `low_water` blocks are left."""
    return sectors, (f"thin-pool {metadata} {data} {block_sectors} {low_water} 1 error_if_no_space")


def thin(sectors: int, pool: Path, number: int, external: Path | None = None) -> Target:
    """A device of a pool; what it has no block of its own for comes from `external`, or is zero."""
    return sectors, f"thin {pool} {number}" + (f" {external}" if external else "")


def table(targets: Iterable[Target]) -> str:
    """Return the table as dmsetup(8) reads it."""
    lines, start = [], 0
    for sectors, rest in targets:
        if sectors <= 0:
            continue
        lines.append(f"{start} {sectors} {rest}\n")
        start += sectors
    return "".join(lines)


def store_bytes(disk_bytes: int) -> int:
    """Return how large a snapshot's store must be for every chunk of the disk to be written once.

    One that is smaller can fill up, and then the kernel gives up the whole snapshot. The file is
    sparse, so that the size costs nothing.
    """
    chunk = CHUNK * SECTOR
    chunks = -(-disk_bytes // chunk)
    # A header, the data, as many chunks of entries as that takes, and one begun ahead.
    return (1 + chunks + -(-chunks // _ENTRIES) + 2) * chunk


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a snapshot's store is."""

    used_bytes: int
    total_bytes: int
    #: False: the kernel has given it up, and every read and write fails.
    valid: bool


def require() -> None:
    """Raise HostError, with what to do, unless the device mapper can be used here."""
    proc.find("dmsetup")
    try:
        proc.run(["dmsetup", "version"], timeout=_TIMEOUT)
    except CommandFailed as error:
        if "Permission denied" in error.stderr:
            raise MissingPrivilege("the device mapper is for root", hint="run it as root") from None
        raise HostError(
            "this host has no device mapper",
            hint="as root: modprobe dm-snapshot; or use --disk qcow2",
            detail=error.stderr,
        ) from error


def node(name: str) -> Path:
    """Return where a device's node is."""
    return Path("/dev/mapper") / name


def names(prefix: str) -> list[str]:
    """Return the devices whose names begin with `prefix`, those first that lie over others."""
    try:
        done = proc.run(
            ["dmsetup", "info", "-c", "--noheadings", "-o", "minor,name"], timeout=_TIMEOUT
        )
    except (CommandFailed, HostError):
        return []
    found = []
    for line in done.stdout.decode().splitlines():
        minor, _, name = line.strip().partition(":")
        if minor.isdigit() and name.startswith(prefix):
            found.append((int(minor), name))
    return [name for _, name in sorted(found, reverse=True)]


def create(name: str, targets: Sequence[Target], *, read_only: bool = False) -> Path:
    """Make a device and return its node. On failure nothing is left."""
    if not _NAME.fullmatch(name):
        raise HostError(f"{name!r} is no name for a device")
    options = ["--readonly"] if read_only else []
    try:
        _dmsetup("create", *options, name, input=table(targets))
    except BaseException:
        with contextlib.suppress(CommandFailed):
            remove(name)
        raise
    return node(name)


def remove(name: str) -> bool:
    """Remove a device, if it is there. False: somebody still has it open, and it goes with them."""
    try:
        # Tried again for five seconds: udev may be looking at it.
        _dmsetup("remove", "--retry", name)
    except CommandFailed as error:
        if _absent(error):
            return True
        try:
            _dmsetup("remove", "--deferred", name)
        except CommandFailed as again:
            if _absent(again):
                return True
            raise
        return name not in names(name)
    return True


@contextmanager
def created(name: str, targets: Sequence[Target], *, read_only: bool = False) -> Iterator[Path]:
    """Have a device for the time of the block."""
    path = create(name, targets, read_only=read_only)
    try:
        yield path
    finally:
        remove(name)


def suspend(name: str) -> None:
    """Let what is under way finish, and hold back what comes: whoever writes, waits."""
    _dmsetup("suspend", "--nolockfs", name)


def resume(name: str) -> None:
    """Let it go on."""
    _dmsetup("resume", name)


def usage(name: str) -> Usage:
    """Return how full the store of a snapshot is."""
    done = _dmsetup("status", name)
    return _parse_usage(done)


def _parse_usage(status: str) -> Usage:
    """`0 4194304 snapshot 1320/4194320 16`, or a word instead of the numbers."""
    words = status.split()
    if len(words) >= 4 and words[2] == "snapshot":
        numbers = re.fullmatch(r"(\d+)/(\d+)", words[3])
        if numbers:
            used, total = int(numbers[1]), int(numbers[2])
            return Usage(used * SECTOR, total * SECTOR, valid=True)
        if words[3] in ("Invalid", "Overflow", "Merge"):
            return Usage(0, 0, valid=False)
    raise HostError(f"dmsetup says something unknown of a snapshot: {status.strip()!r}")


def _dmsetup(verb: str, *args: str, input: str | None = None) -> str:
    udev = [] if Path("/run/udev/control").exists() else ["--noudevsync", "--noudevrules"]
    done = proc.run(
        ["dmsetup", verb, *udev, *args],
        timeout=_TIMEOUT,
        input=None if input is None else input.encode(),
    )
    return done.stdout.decode(errors="replace")


def _absent(error: CommandFailed) -> bool:
    return "No such device" in error.stderr or "not found" in error.stderr.lower()
