# SPDX-License-Identifier: Apache-2.0
"""Start QEMU: open its files, listen for it, record the exact command line, let it run.

Nothing here outlives a failure: the descriptors are ours only until QEMU has inherited them.
"""

from __future__ import annotations

import json
import os
import shlex
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bugbox.errors import HostError
from bugbox.host.proc import Process, find, spawn
from bugbox.machine.qemu import gate
from bugbox.machine.qemu.cmdline import Descriptors, Platform, arguments, drive_nodes
from bugbox.machine.qemu.gate import Order
from bugbox.machine.sockets import listen
from bugbox.machine.spec import MachineSpec
from bugbox.network.lookup import looked_up
from bugbox.paths import SessionPaths

__all__ = ["launch"]


def launch(
    spec: MachineSpec,
    platform: Platform,
    *,
    program: str,
    append: str,
    started: Callable[[Process], None],
    ram: int | None = None,
    state: int | None = None,
) -> None:
    """Start QEMU, stopped, its sockets listening. `started` gets its process at once.

    `ram` is a memory file to be the guest's memory, `state` the pipe that a clone is loaded from.
    """
    paths = SessionPaths(spec.root, spec.runtime)
    with ExitStack() as stack:
        names: dict[int, str] = {}

        def opened(path: Path, flags: int) -> int:
            fd = _open(path, flags)
            stack.callback(os.close, fd)
            names[fd] = str(path)
            return fd

        def listening(path: Path) -> int:
            server = stack.enter_context(listen(path))
            names[server.fileno()] = str(path)
            return server.fileno()

        for fd, name in ((ram, "memory"), (state, "state")):
            if fd is not None:
                names[fd] = name
        kernel = opened(spec.kernel.vmlinux, os.O_RDONLY)
        initrd = opened(spec.kernel.initrd, os.O_RDONLY) if spec.kernel.initrd else None
        for fd in (kernel, initrd):
            if fd is not None and spec.uid is not None:
                _check_readable(fd, names[fd], spec.uid)
        files = Descriptors(
            kernel=kernel,
            initrd=initrd,
            qmp=listening(paths.qmp),
            console=listening(paths.console_socket),
            lifeline=listening(paths.lifeline),
            drives={
                name: opened(part.path, os.O_RDONLY if part.read_only else os.O_RDWR)
                for drive in spec.drives
                for name, part in drive_nodes(drive)
            },
            ram=ram,
            state=state,
        )
        groups = _kvm_group() if platform.accel == "kvm" else ()
        through = _gate(spec, groups)
        argv = [*through, find(program), *arguments(spec, platform, files, append)]
        _record(paths.argv, argv, names, spec.uid)
        process = spawn(
            argv,
            log_file=paths.vmm_log,
            pass_fds=tuple(names),
            # The gate needs what root may; then it is that user itself.
            uid=None if through else spec.uid,
            groups=() if through else groups,
        )
        started(process)


def _gate(spec: MachineSpec, groups: tuple[int, ...]) -> list[str]:
    """Return what goes before QEMU's own words where the guest reaches some addresses only."""
    for nic in spec.nics:
        if nic.reach is not None:
            found, failed = looked_up(goal.rpartition(":")[0] for goal in nic.reach)
            order = Order(
                goals=nic.reach,
                found=found,
                failed=failed,
                names=nic.names,
                private=nic.private,
                uid=spec.uid,
                groups=groups,
            )
            return [sys.executable, "-P", "-m", gate.__name__, order.as_text()]
    return []


def _kvm_group() -> tuple[int, ...]:
    """The group that may use /dev/kvm: QEMU opens that by name, as a user who owns nothing."""
    group = os.stat("/dev/kvm").st_gid  # noqa: PTH116 (a device's node, not a path of ours)
    return (group,) if group else ()


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{path} cannot be opened: {error.strerror}") from error


def _check_readable(fd: int, name: str, uid: int) -> None:
    """Kernel and initramfs are opened anew through /proc, so their mode counts."""
    info = os.fstat(fd)
    if info.st_uid != uid and not info.st_mode & stat.S_IROTH:
        raise HostError(
            f"{name} cannot be read by the machine's own user", hint=f"chmod a+r {name}"
        )


def _record(path: Path, argv: list[str], names: dict[int, str], uid: int | None) -> None:
    """Write what `bugbox debug` shows: each descriptor with the file it stands for."""
    record = {
        "argv": argv,
        "command": shlex.join(argv),
        "descriptors": {str(fd): name for fd, name in sorted(names.items())},
        "uid": uid,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
