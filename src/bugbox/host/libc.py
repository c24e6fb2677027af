# SPDX-License-Identifier: Apache-2.0
"""C calls that Python lacks, each a few lines: the only importer of ctypes."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

__all__ = [
    "bind_mount",
    "enter_network",
    "new_network",
    "share_mounts",
    "timestamp_counter",
    "unmount",
]

# From linux/sched.h and linux/mount.h.
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 0x100000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

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


def new_network(*, user: bool = False) -> None:
    """Give the calling thread, and it alone, a new network namespace (unshare(2)).

    With `user` a user namespace too, which owns it: then no root is needed.
    """
    flags = _CLONE_NEWNET | (_CLONE_NEWUSER if user else 0)
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def enter_network(fd: int) -> None:
    """Move the calling thread, and it alone, into the network namespace `fd` (setns(2))."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(_CLONE_NEWNET)), "setns")


def bind_mount(source: str, target: str) -> None:
    """Show the file or folder `source` at `target` too (mount(2), MS_BIND)."""
    _mount(source, target, _MS_BIND)


def share_mounts(folder: str) -> None:
    """Let mounts below `folder`, a mount point, be seen in every mount namespace that has it."""
    _mount("none", folder, _MS_SHARED | _MS_REC)


def unmount(target: str) -> None:
    """Take away the mount on `target` for all who look there (umount2(2), MNT_DETACH)."""
    flags = ctypes.c_int(_MNT_DETACH | _UMOUNT_NOFOLLOW)
    _check(_libc.umount2(os.fsencode(target), flags), target)


def _mount(source: str, target: str, flags: int) -> None:
    words = (os.fsencode(source), os.fsencode(target), None)
    _check(_libc.mount(*words, ctypes.c_ulong(flags), None), target)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
