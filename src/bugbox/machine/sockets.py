# SPDX-License-Identifier: Apache-2.0
"""What every VMM's start needs: sockets that it inherits listening, and what it said last."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from bugbox.errors import HostError, StateError
from bugbox.machine.spec import MachineSpec
from bugbox.paths import SessionPaths

__all__ = ["listen", "log_tail", "remove_stale"]

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
    """Remove a socket that nobody listens on; StateError when somebody does."""
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        with suppress(OSError):
            probe.connect(str(path))
            raise StateError(f"a machine is still running on {path}")
    path.unlink(missing_ok=True)


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
