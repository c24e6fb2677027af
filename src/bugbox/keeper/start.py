# SPDX-License-Identifier: Apache-2.0
"""Reach the keeper: connect, start one when none listens, let one of another version retire.

Which of two keepers lives is decided by a lock on `Home.keeper_lock`, never here.
Standard library only, without asyncio: the thin clients use it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import time

from bugbox.errors import HostError
from bugbox.keeper import protocol
from bugbox.keeper.stream import KeeperGone
from bugbox.paths import Home

__all__ = ["connect", "locked", "retire", "try_connect"]

#: Seconds until a keeper that was just started must listen: it may share a busy core, and the one
#: before it may still finish its answers.
_START_TIMEOUT = 300.0
_RETIRE_TIMEOUT = 300.0
_CHUNK = 1 << 16


def retire(home: Home) -> None:
    """Ask the keeper that listens to let go of its machines and end; wait until it has."""
    sock = try_connect(home)
    if sock is not None:
        with sock, contextlib.suppress(OSError):
            sock.sendall(
                protocol.line(
                    {"protocol": protocol.PROTOCOL, "version": "", "verb": "retire", "args": {}}
                )
            )
            sock.settimeout(_RETIRE_TIMEOUT)
            while sock.recv(_CHUNK):
                pass
    deadline = time.monotonic() + _RETIRE_TIMEOUT
    while locked(home):
        if time.monotonic() > deadline:
            raise HostError("the old keeper does not end", hint="bugbox logs --keeper")
        time.sleep(0.02)


def connect(home: Home, *, start: bool) -> socket.socket:
    """Connect to the keeper; start one when none listens, or raise KeeperGone."""
    sock = try_connect(home)
    if sock is not None:
        return sock
    if not start:
        raise KeeperGone("no keeper runs", hint="any command that needs one starts it")
    home.prepare()
    child = _spawn(home)
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        sock = try_connect(home)
        if sock is not None:
            return sock
        child = _still_starting(home, child)
        time.sleep(0.005)
    raise HostError("the keeper does not answer", hint=f"see {home.keeper_log}")


def try_connect(home: Home) -> socket.socket | None:
    """Connect to the keeper that listens, or return None."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(str(home.keeper_socket))
        if _owner(sock) == os.geteuid():
            return sock
        sock.close()
        raise HostError(f"{home.keeper_socket}: somebody else's keeper listens there")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as error:
        sock.close()
        raise HostError(f"{home.keeper_socket}: {error.strerror}") from error


def _owner(sock: socket.socket) -> int:
    """Return the user that listens at the other end (struct ucred: pid, uid, gid)."""
    ucred = struct.Struct("3i")
    found: int = ucred.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.size))[1]
    return found


def _spawn(home: Home) -> int:
    """Start a keeper in a session of its own; return its pid. A second one ends by itself."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "bugbox.keeper"],
        {**os.environ, "BUGBOX_HOME": str(home.root)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(home.keeper_log), flags, 0o600),
        ],
        setsid=True,
    )


def _still_starting(home: Home, child: int) -> int:
    """Return the pid of the keeper that comes up; start another when ours met a dying one."""
    if child == 0:
        return 0 if locked(home) else _spawn(home)
    status = _reap(child)
    if status is None:
        return child
    if status != 0:
        raise HostError("the keeper could not start", hint=f"see {home.keeper_log}")
    return 0


def _reap(child: int) -> int | None:
    """Return the status of a child that has ended."""
    pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def locked(home: Home) -> bool:
    """Whether a keeper lives: its lock is taken."""
    try:
        fd = os.open(home.keeper_lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
