# SPDX-License-Identifier: Apache-2.0
"""Start a machine's warden, and with it Firecracker; record the exact command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bugbox.errors import HostError
from bugbox.host.proc import Process, find, spawn
from bugbox.machine.firecracker.config import Names, arguments, requests
from bugbox.machine.firecracker.model import document
from bugbox.machine.firecracker.version import Version
from bugbox.machine.sockets import listen, log_tail, remove_stale
from bugbox.machine.spec import Drive, MachineSpec
from bugbox.paths import SessionPaths

__all__ = ["last_words", "launch"]

#: Among lines that only tell what was asked of it.
_COMPLAINT = re.compile("error|panic", re.IGNORECASE)
_WARDEN = "bugbox.machine.firecracker.warden"


def launch(
    spec: MachineSpec,
    version: Version,
    *,
    program: str,
    append: str,
    started: Callable[[Process], None],
    load: bool = False,
) -> None:
    """Start the machine. `started` gets its warden at once; with `load` it waits for a snapshot."""
    paths = SessionPaths(spec.root, spec.runtime)
    names = _names(spec, paths)
    config = document(requests(spec, names, append, version), version)
    paths.vmm_config.write_text(json.dumps(config, indent=1) + "\n")
    for socket in (paths.api, paths.vsock):
        remove_stale(socket)
    # Whoever kills the warden has ended the machine.
    start = [find("setpriv"), "--pdeathsig", "KILL", "--", find(program)]
    again = [*start, *arguments(spec.id, names)]
    argv = [*start, *arguments(spec.id, names, boot=not load)]
    record = {
        "argv": argv,
        "again": again,
        "command": shlex.join(argv),
        "stale": [str(paths.api), str(paths.vsock)],
        "config": config,
    }
    paths.argv.write_text(json.dumps(record, indent=1) + "\n")
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(listen(path)) for path in (paths.control, paths.console_socket)
        ]
        process = spawn(
            # Nothing but the standard library: no search for installed packages.
            [sys.executable, "-S", "-m", _WARDEN, paths.argv, *(str(s.fileno()) for s in sockets)],
            log_file=paths.vmm_log,
            pass_fds=[s.fileno() for s in sockets],
            env={"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        started(process)


def last_words(spec: MachineSpec) -> str:
    """Say in a line how Firecracker ended, and with what complaint of its own, if any."""
    lines = [line.strip() for line in log_tail(spec).splitlines() if line.strip()]
    if not lines:
        return "it said nothing"
    if len(lines) > 1 and _COMPLAINT.search(lines[-2]):
        return f"{lines[-2]} ({lines[-1]})"
    return lines[-1]


def _names(spec: MachineSpec, paths: SessionPaths) -> Names:
    kernel = _there(spec.kernel.vmlinux)
    return Names(
        api=str(paths.api),
        config=str(paths.vmm_config),
        log="/proc/self/fd/2",
        vsock=str(paths.vsock),
        kernel=kernel,
        initrd=_there(spec.kernel.initrd) if spec.kernel.initrd else None,
        drives={drive.id: _drive(drive) for drive in spec.drives},
    )


def _drive(drive: Drive) -> str:
    return _there(drive.path, os.R_OK if drive.read_only else os.R_OK | os.W_OK)


def _there(path: Path, access: int = os.R_OK) -> str:
    """Say it here, where the file has a name that means something to the reader."""
    if not os.access(path, access):
        how = "cannot be used" if path.exists() else "is not there"
        raise HostError(f"{path} {how}")
    return str(path)
