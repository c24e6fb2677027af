# SPDX-License-Identifier: Apache-2.0
"""C calls that Python lacks, each a few lines: the only importer of ctypes."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

__all__ = ["timestamp_counter"]

#: rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")

_libc = ctypes.CDLL(None, use_errno=True)


def timestamp_counter() -> Callable[[], int] | None:
    """Return a function that reads the CPU's time stamp counter; None where that cannot be had.

    Reading it takes one instruction that Python has no word for. The ten bytes of machine code
    lie in a memory file that is mapped read-only and executable, so that no page is ever writable
    and executable at once, which hardened hosts forbid. They stay mapped until the process ends.
    """
    if os.uname().machine != "x86_64":
        return None
    try:
        fd = os.memfd_create("timestamp", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(fd, _RDTSC)
        address = _map_code(fd, len(_RDTSC))
    finally:
        os.close(fd)
    if address is None:
        return None
    return ctypes.CFUNCTYPE(ctypes.c_uint64)(address)


def _map_code(fd: int, length: int) -> int | None:
    call = _libc.mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    ]
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    address: int | None = call(None, length, protection, mmap.MAP_PRIVATE, fd, 0)
    failed = ctypes.c_void_p(-1).value
    return None if address is None or address == failed else address
