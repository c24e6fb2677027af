# SPDX-License-Identifier: Apache-2.0
"""Whether a program can be jailed: it must be there, may be run, and need nothing beside it."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from bugbox.errors import HostError, MissingTool

__all__ = ["check_static"]

# From elf(5): the identification of a 64-bit little-endian file, and what we read of its header.
_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<32xQ14xHH")
_PT_INTERP = 3
_MAX_SEGMENTS = 1024


def check_static(program: Path) -> None:
    """Raise unless `program` can be run where there is no other file.

    MissingTool when it is not there, HostError when it may not be run, is no program of this
    machine's kind, or asks for a loader.
    """
    try:
        status = program.stat()
        head = _read(program)
    except FileNotFoundError:
        raise MissingTool(f"{program} is not there") from None
    except OSError as error:
        raise HostError(f"{program}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
        raise HostError(f"{program} is not a program that can be run", hint=f"chmod +x {program}")
    if not head.startswith(_MAGIC):
        raise HostError(f"{program} is no 64-bit Linux program; a jail has nothing to run it with")
    if _asks_for_a_loader(head):
        raise HostError(
            f"{program} is linked dynamically, and in its jail there is no loader and no library",
            hint="take the release's build, which is static (musl)",
            detail="The jailer would say: Failed to exec into Firecracker: No such file or "
            "directory (os error 2)",
        )


def _read(program: Path) -> bytes:
    """Its header and the table of segments, which lies right behind it in every linker's files."""
    with program.open("rb") as file:
        return file.read(1 << 16)


def _asks_for_a_loader(head: bytes) -> bool:
    if len(head) < _HEADER.size:
        return True
    start, size, count = _HEADER.unpack_from(head)
    for number in range(min(count, _MAX_SEGMENTS)):
        place = start + number * size
        if place + 4 > len(head):
            return True
        if struct.unpack_from("<I", head, place)[0] == _PT_INTERP:
            return True
    return False
