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
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import HostError
from bugbox.host.proc import Process, find, spawn
from bugbox.machine.firecracker.config import Names, arguments, requests
from bugbox.machine.firecracker.jail import Jail
from bugbox.machine.firecracker.model import document
from bugbox.machine.firecracker.version import Version
from bugbox.machine.sockets import listen, log_tail, remove_stale
from bugbox.machine.spec import Drive, MachineSpec
from bugbox.paths import SessionPaths

__all__ = ["last_words", "launch"]

#: Among lines that only tell what was asked of it.
_COMPLAINT = re.compile("error|panic", re.IGNORECASE)
#: The jailer makes them, and fails where they are: a guest's reboot runs it in the same jail.
_MADE_BY_JAILER = ("dev/kvm", "dev/net/tun", "dev/urandom", "dev/userfaultfd")
_WARDEN = "bugbox.machine.firecracker.warden"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where Firecracker runs: what starts it there, and what everything is called."""

    start: list[str]
    id: str
    names: Names
    #: The folder of what it makes, and names in it that must be gone before it starts.
    folder: Path
    stale: tuple[str, ...]
    #: A FIFO that takes its log; empty: it comes out on its own stream.
    log: str = ""
    #: The jail's user, who has no other process.
    uid: int | None = None


def launch(
    spec: MachineSpec,
    version: Version,
    *,
    program: str,
    append: str,
    started: Callable[[Process], None],
    jail: Jail | None = None,
) -> None:
    """Start the machine, in its jail if it has one. `started` gets its warden at once."""
    paths = SessionPaths(spec.root, spec.runtime)
    for socket in (paths.api, paths.vsock):
        remove_stale(socket)
        socket.unlink(missing_ok=True)
    paths.vmm_config.unlink(missing_ok=True)
    place = _unjailed(spec, paths, program) if jail is None else _jailed(spec, paths, jail)
    config = document(requests(spec, place.names, append, version), version)
    paths.vmm_config.write_text(json.dumps(config, indent=1) + "\n")
    if jail is not None:
        jail.path_in(paths.vmm_config)
    argv = [*place.start, *arguments(place.id, place.names)]
    record = {
        "argv": argv,
        "command": shlex.join(argv),
        "folder": str(place.folder),
        "stale": place.stale,
        "log": place.log,
        "uid": place.uid,
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


def _unjailed(spec: MachineSpec, paths: SessionPaths, program: str) -> _Place:
    kernel, initrd = _kernel(spec)
    names = Names(
        api=str(paths.api),
        config=str(paths.vmm_config),
        log="/proc/self/fd/2",
        vsock=str(paths.vsock),
        kernel=str(kernel),
        initrd=str(initrd) if initrd else None,
        drives={drive.id: str(_drive(drive)) for drive in spec.drives},
    )
    # Whoever kills the warden has ended the machine.
    start = [find("setpriv"), "--pdeathsig", "KILL", "--", find(program)]
    return _Place(start, spec.id, names, paths.runtime, (paths.api.name, paths.vsock.name))


def _jailed(spec: MachineSpec, paths: SessionPaths, jail: Jail) -> _Place:
    """Put all that it needs into its jail, and links to its sockets where we look for them."""
    kernel, initrd = _kernel(spec)
    api, vsock, log = (jail.root / name for name in (paths.api.name, paths.vsock.name, "log"))
    names = Names(
        api=f"/{api.name}",
        config=f"/{paths.vmm_config.name}",
        log=f"/{log.name}",
        vsock=f"/{vsock.name}",
        kernel=jail.path_in(kernel, name="vmlinux"),
        initrd=jail.path_in(initrd, name="initrd") if initrd else None,
        drives={
            drive.id: jail.path_in(_drive(drive), writable=not drive.read_only, name=f"disk{n}")
            for n, drive in enumerate(spec.drives)
        },
    )
    os.mkfifo(log, 0o600)
    os.chown(log, jail.uid, jail.gid)
    paths.api.symlink_to(api)
    paths.vsock.symlink_to(vsock)
    made = (*_MADE_BY_JAILER, jail.program, f"{jail.program}.pid")
    stale = (api.name, vsock.name, *made)
    return _Place(jail.argv, "", names, jail.root, stale, str(log), jail.uid)


def _kernel(spec: MachineSpec) -> tuple[Path, Path | None]:
    return _there(spec.kernel.vmlinux), _there(spec.kernel.initrd) if spec.kernel.initrd else None


def _drive(drive: Drive) -> Path:
    return _there(drive.path, os.R_OK if drive.read_only else os.R_OK | os.W_OK)


def _there(path: Path, access: int = os.R_OK) -> Path:
    """Say it here, where the file has a name that means something to the reader."""
    if not os.access(path, access):
        how = "cannot be used" if path.exists() else "is not there"
        raise HostError(f"{path} {how}")
    return path
