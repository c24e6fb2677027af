# SPDX-License-Identifier: Apache-2.0
"""What every VMM's start needs: sockets that it inherits listening, and what it said last."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bugbox.errors import HostError, StateError
from bugbox.machine.spec import MachineSpec
from bugbox.paths import SessionPaths

__all__ = ["listen", "log_tail", "made_by_vmm", "remove_stale"]

#: A UNIX socket's path may have so many bytes.
_SUN_PATH = 107


def listen(path: Path) -> socket.socket:
    """Listen where nobody else does. What QEMU inherits has a queue, so we can connect at once."""
    if len(os.fsencode(path)) > _SUN_PATH:
        raise HostError(f"{path}: too long for a socket's name", hint="use a shorter BUGBOX_HOME")
    remove_stale(path)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(4)
    except OSError as error:
        server.close()
        raise HostError(f"{path}: {error.strerror}") from error
    return server


def remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; StateError when somebody does.

    A link is one of ours into a jail, and only removed: what lies there now is anybody's guess.
    """
    if path.is_symlink():
        path.unlink(missing_ok=True)
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with suppress(OSError):
            probe.connect(str(path))
            raise StateError(f"a machine is still running on {path}")
    path.unlink(missing_ok=True)


@contextmanager
def made_by_vmm(path: Path) -> Iterator[int]:
    """Look at the socket that a VMM made at `path`; yields a descriptor that stands for it.

    Connect to `/proc/self/fd/N`. `path` may be a link of ours into a jail, whose user can put
    anything there, such as a link to a socket that only root may talk to. So no link of theirs is
    followed, and it has to be a socket of the folder's owner. OSError: it is none, or not there.
    """
    place = path.readlink() if path.is_symlink() else path
    folder = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.open(place.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(found)
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.fstat(folder).st_uid:
                raise PermissionError(errno.EPERM, "not a socket of its folder's owner", str(place))
            yield found
        finally:
            os.close(found)
    finally:
        os.close(folder)


def log_tail(spec: MachineSpec, lines: int = 10) -> str:
    """Return the last lines of what the VMM itself said."""
    path = SessionPaths(spec.root, spec.runtime).vmm_log
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
