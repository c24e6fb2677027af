# SPDX-License-Identifier: Apache-2.0
"""What of QEMU and this host shapes a saved machine: with another of these it cannot be cloned.

QEMU itself checks little: it takes a state that was saved with another CPU model, or with a device
less, and the guest finds out later.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

from bugbox.host.proc import find
from bugbox.machine.qemu.cmdline import Descriptors, Platform, arguments, drive_nodes
from bugbox.machine.spec import MachineSpec

__all__ = ["traits"]

#: Of /proc/cpuinfo; the rest of it (its MHz, for one) changes while one looks.
_CPU = ("vendor_id", "cpu family", "model", "stepping", "flags")


def traits(spec: MachineSpec, platform: Platform, program: str, append: str) -> dict[str, str]:
    """Return each by its name; the arguments with names in place of what one machine alone has."""
    cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
    found = {
        "argv": shlex.join(impersonal(spec, platform, append)),
        "vmm": _build(Path(find(program))),
        "cpu": hashlib.sha256(cpu(cpuinfo).encode()).hexdigest(),
    }
    if platform.accel == "kvm":
        found["host kernel"] = os.uname().release
    return found


def impersonal(spec: MachineSpec, platform: Platform, append: str) -> list[str]:
    """Return the arguments of a machine to be saved, the same for every session."""
    names = [name for drive in spec.drives for name, _ in drive_nodes(drive)]
    files = Descriptors(
        kernel=3,
        initrd=None if spec.kernel.initrd is None else 4,
        qmp=5,
        console=6,
        lifeline=7,
        ram=8,
        drives={name: 9 + number for number, name in enumerate(names)},
    )
    argv = arguments(spec, platform, files, append)
    return [arg.replace(f"guest={spec.id},", "guest=ID,") for arg in argv]


def cpu(cpuinfo: str) -> str:
    """Return what tells one kind of CPU from another, of the first one in /proc/cpuinfo."""
    first = cpuinfo.split("\n\n")[0]
    fields = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in fields.items()}
    return "\n".join(f"{name}: {values.get(name, '')}" for name in _CPU)


def _build(program: Path) -> str:
    """Tell one build of a program from another without starting it."""
    real = program.resolve()
    info = real.stat()
    return f"{real} {info.st_ino} {info.st_size} {info.st_mtime_ns}"
