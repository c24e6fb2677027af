# SPDX-License-Identifier: Apache-2.0
"""Taps: an interface whose other end is a file descriptor, a VMM's.

One that lasts belongs to a user, who may open it without any right over the network. Firecracker
makes a tap that it does not find, when it may, and the machine is then plugged into nothing: so a
tap is looked for before its name is passed on.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from bugbox.errors import HostError, MissingPrivilege

__all__ = ["make", "require"]

DEVICE = Path("/dev/net/tun")

# From linux/if_tun.h and linux/if.h.
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_REQUEST = struct.Struct("16sH22x")


def make(name: str, uid: int | None) -> None:
    """Make a tap that lasts, in the calling thread's namespace; `uid` alone may open it."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError(f"this host has no {DEVICE}", hint="as root: modprobe tun") from None
    except PermissionError:
        raise MissingPrivilege(f"{DEVICE} is for root", hint="run it as root") from None
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _REQUEST.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
        if uid is not None:
            fcntl.ioctl(fd, _TUNSETOWNER, uid)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except PermissionError:
        raise MissingPrivilege("taps are for root to make", hint="run it as root") from None
    finally:
        os.close(fd)


def require(name: str) -> None:
    """Raise HostError unless the calling thread's namespace has a tap of that name."""
    # sysfs shows the namespace it was mounted in; this file follows the thread's.
    listed = Path("/proc/thread-self/net/dev").read_text()
    if f"{name}:" not in (
        line.split(maxsplit=1)[0] for line in listed.splitlines() if line.strip()
    ):
        raise HostError(f"the tap {name} is gone", hint="stop the machine and start it again")
