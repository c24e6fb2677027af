# SPDX-License-Identifier: Apache-2.0
"""Run a program as root of its own small world, without being root.

A root filesystem has files of many owners, capabilities and ACLs. An ordinary user may write
these inside a user namespace, where the users 1.. are the user's subordinate ones (subuid(5))
and 0 is the user. Programs that make and read such a tree must share the same mapping: then
a file capability reads back exactly as it was written.

In both cases the program gets PID and mount namespaces of its own, and dies with us: a builder
ended by `kill -9` leaves neither processes nor mounts behind.
"""

from __future__ import annotations

import os
import pwd
from functools import cache
from pathlib import Path

from bugbox.errors import CommandFailed, MissingPrivilege
from bugbox.host import proc

__all__ = ["as_root"]

# util-linux' setpriv asks the kernel to kill the program when the process that started it ends.
_DIE_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_MAPPED = ("--map-root-user", "--map-auto")


def as_root() -> tuple[str, ...]:
    """Return what to put in front of an argv. Raises when this host does not let us."""
    return (*_DIE_WITH_US, *(_for_root() if os.geteuid() == 0 else _for_user()), "--")


@cache
def _for_root() -> tuple[str, ...]:
    try:
        proc.run([*_NAMESPACES, "true"], timeout=30)
    except CommandFailed:
        # A container may forbid namespaces to its root; the tools still work, less tidily.
        return ()
    return _NAMESPACES


@cache
def _for_user() -> tuple[str, ...]:
    user = pwd.getpwuid(os.geteuid()).pw_name
    proc.find("newuidmap")
    if not (_listed("/etc/subuid", user) and _listed("/etc/subgid", user)):
        raise MissingPrivilege(
            f"{user} has no subordinate user and group ids, so no image can be built",
            hint=f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    try:
        proc.run([*_NAMESPACES, *_MAPPED, "true"], timeout=30)
    except CommandFailed as error:
        raise MissingPrivilege(
            "this host does not let ordinary users make user namespaces, so no image can be built",
            hint="as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0 "
            "(or kernel.unprivileged_userns_clone=1), or build the image as root",
            detail=error.stderr,
        ) from error
    return (*_NAMESPACES, *_MAPPED)


def _listed(path: str, user: str) -> bool:
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        return False
    return any(line.split(":")[0] in (user, str(os.geteuid())) for line in lines)
