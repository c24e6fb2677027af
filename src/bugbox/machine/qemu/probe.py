# SPDX-License-Identifier: Apache-2.0
"""Whether KVM works here, found out by booting: /dev/kvm being there proves nothing.

The kernel is started without an initramfs, so that it ends in its own panic for want of a root.
A kernel that gets so far under KVM works. The answer is kept for this boot of the host, this
QEMU and this kernel.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from bugbox.errors import CommandFailed
from bugbox.host.proc import find, run
from bugbox.machine.qemu.cmdline import Platform
from bugbox.machine.qemu.tsc import boot_id

__all__ = ["EMULATION", "kvm_platform", "probe", "qemu_version"]

log = logging.getLogger(__name__)

#: The CPU of software emulation: all that it can do. The timer that runs on in idle (ARAT) is in
#: `max`, and is named because without it an idle machine takes three times the CPU. What is taken
#: out makes emulated kernels slower for nothing in return.
EMULATION = Platform(accel="tcg", cpu="max,+arat")

#: CPU models to try under KVM, the best first.
_KVM_CPUS = ("host", "max")
_MARKER = b"VFS: Unable to mount root"
_APPEND = "console=ttyS0 panic=-1 reboot=t"


def qemu_version(program: str) -> str:
    """Return the first line of `qemu --version`: it names the exact build."""
    out = run([program, "--version"], timeout=20).stdout.decode(errors="replace")
    return out.splitlines()[0].strip() if out else ""


def kvm_platform(
    cache: Path, program: str, vmlinux: Path, *, timeout: float = 10.0
) -> tuple[Platform | None, bool]:
    """Return (KVM as it was seen to boot, or None; whether it was probed just now)."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return None, False
    info = vmlinux.stat()
    key = {
        "boot_id": boot_id(),
        "qemu": qemu_version(program),
        "kernel": [str(vmlinux), info.st_ino, info.st_size, info.st_mtime_ns],
        "uid": os.geteuid(),
    }
    kept = _read(cache)
    if kept is not None and kept.get("key") == key:
        cpu = kept.get("cpu")
        return (Platform(accel="kvm", cpu=str(cpu)) if cpu else None), False
    cpu = next((c for c in _KVM_CPUS if probe(program, vmlinux, c, timeout=timeout)), None)
    _write(cache, {"key": key, "cpu": cpu})
    return (Platform(accel="kvm", cpu=cpu) if cpu else None), True


def probe(program: str, vmlinux: Path, cpu: str, *, timeout: float, accel: str = "kvm") -> bool:
    """Boot `vmlinux` until it misses its root; False when it does not get there."""
    argv = [
        *(find(program), "-name", "bugbox-probe", "-no-user-config", "-nodefaults"),
        *("-display", "none", "-no-reboot", "-accel", accel, "-cpu", cpu, "-m", "128M"),
        *("-machine", "microvm,acpi=on,pcie=off,isa-serial=on,x-option-roms=off"),
        *("-kernel", str(vmlinux), "-append", _APPEND),
        *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]
    try:
        done = run(argv, timeout=timeout)
    except CommandFailed as error:
        log.info("%s with -cpu %s does not work here: %s", accel, cpu, error.message)
        return False
    return _MARKER in done.stdout


def _read(cache: Path) -> dict[str, object] | None:
    try:
        kept = json.loads(cache.read_text())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def _write(cache: Path, value: dict[str, object]) -> None:
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(value, indent=1) + "\n")
        fresh.replace(cache)
    except OSError as error:
        log.warning("%s: %s", cache, error)
