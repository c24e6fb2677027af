# SPDX-License-Identifier: Apache-2.0
"""A machine's memory as a file: written while it boots, sealed when it is saved, mapped by clones.

The file that clones map lies in the host's memory and is *sealed*: the kernel refuses every write
to it, by whoever holds a descriptor, for as long as it exists. QEMU before 8.2 opens what it maps
for reading and writing even where each write stays private; sealed, it may, and a VMM that a guest
has taken over still cannot reach what another one maps. See docs/decisions.

On disk only what is not zero takes room. The digest covers the blocks that are not zero with their
place, so it does not depend on where a copy has its holes.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from bugbox.errors import HostError

__all__ = ["anonymous", "create", "load", "save", "seal"]

_BLOCK = 1 << 16
_ZERO = bytes(_BLOCK)
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(name: str, size: int) -> int:
    """Make a memory file of `size` zero bytes; return its descriptor, which the caller closes."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # A VMM of another user opens it through /proc, where the mode counts.
        os.fchmod(fd, 0o666)
    except BaseException:
        os.close(fd)
        raise
    return fd


def anonymous(name: str) -> int:
    """Make an empty file that lies in memory and has no name; the caller closes it."""
    return os.memfd_create(name, os.MFD_CLOEXEC)


def seal(fd: int) -> None:
    """Let nobody write to it or change its size any more. Nobody may have it mapped to write."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        raise HostError(f"the machine's memory cannot be sealed: {error.strerror}") from error


def save(fd: int, path: Path) -> str:
    """Write a memory file to the disk, without its zeros; return its digest."""
    size = os.fstat(fd).st_size
    hasher = hashlib.sha256()
    with path.open("xb") as file:
        os.ftruncate(file.fileno(), size)
        for offset, block in _blocks(fd, size):
            hasher.update(offset.to_bytes(8, "little") + block)
            os.pwrite(file.fileno(), block, offset)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest()


def load(path: Path, size: int) -> tuple[int, str]:
    """Read what `save` wrote into a sealed memory file; return its descriptor and its digest."""
    hasher = hashlib.sha256()
    fd = create(path.parent.name[:64], size)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise HostError(f"{path} has another size than it was written with")
            for offset, block in _blocks(file.fileno(), size):
                hasher.update(offset.to_bytes(8, "little") + block)
                os.pwrite(fd, block, offset)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd, hasher.hexdigest()


def _blocks(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield each block that is not all zero, with its offset; holes are not even read."""
    if size == 0:
        return
    with mmap.mmap(fd, size, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as view:
        for start, end in _data(fd, size):
            for offset in range(start - start % _BLOCK, end, _BLOCK):
                block = view[offset : min(offset + _BLOCK, size)]
                if block != _ZERO[: len(block)]:
                    yield offset, block


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data, in whole blocks, none twice."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # only a hole is left
            return
        stop = os.lseek(fd, start, os.SEEK_HOLE)
        start = max(end, start - start % _BLOCK)
        end = min(size, -(-stop // _BLOCK) * _BLOCK)
        yield start, end
