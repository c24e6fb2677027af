# SPDX-License-Identifier: Apache-2.0
"""The examinations of `bugbox doctor`, each a small function that looks at one thing."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bugbox import __version__
from bugbox.config import Settings
from bugbox.errors import BugboxError, HostError
from bugbox.host import proc
from bugbox.image import store
from bugbox.keeper import client
from bugbox.keeper.stream import KeeperGone
from bugbox.machine.firecracker.probe import check_kvm, jailer_path, program_version
from bugbox.machine.firecracker.program import check_static
from bugbox.machine.qemu.cmdline import Platform
from bugbox.machine.qemu.probe import kvm_platform, qemu_version
from bugbox.paths import Home
from bugbox.storage.disks.choose import STRATEGIES
from bugbox.storage.privilege import as_root

__all__ = ["Finding", "examine"]

#: Room for a kernel, a base image while it is built, and a few sessions.
_DISK_NEEDED = 2 << 30
_MEMORY_NEEDED = 1 << 30
#: What building needs besides QEMU. `proc.PACKAGES` knows the package of each.
_TOOLS = ("qemu-img", "mmdebstrap", "mke2fs", "tar", "zstd", "dpkg-deb", "setpriv", "unshare")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: A UNIX socket's path has 107 bytes at most; our longest name under the runtime folder.
_SOCKET_LIMIT = 107
_LONGEST_NAME = "/" + "x" * 45 + "/lifeline"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one examination found; `fix` is a line to run, `package` the Debian package in it."""

    id: str
    status: Literal["ok", "note", "missing"]
    text: str
    fix: str = ""
    package: str = ""


def examine(home: Home, settings: Settings) -> list[Finding]:
    """Look at everything; no examination keeps another from being made."""
    found: list[Finding] = []
    for look in _LOOKS:
        try:
            found += look(home, settings)
        except (BugboxError, OSError) as error:
            found.append(Finding(look.__name__.strip("_"), "missing", str(error), _hint(error)))
    return found


def _version(_home: Home, _settings: Settings) -> list[Finding]:
    return [Finding("bugbox", "ok", __version__)]


def _qemu(_home: Home, settings: Settings) -> list[Finding]:
    try:
        path = proc.find(settings.qemu)
    except BugboxError as error:
        return [_lack("qemu", error, proc.PACKAGES.get(settings.qemu, ""))]
    return [Finding("qemu", "ok", f"{qemu_version(path)} ({path})")]


def _kvm(home: Home, settings: Settings) -> list[Finding]:
    slower = "software emulation (TCG): several times slower, everything works"
    if settings.accel == "tcg":
        return [Finding("kvm", "note", f"turned off by the settings; {slower}")]
    if not Path("/dev/kvm").exists():
        return [Finding("kvm", "note", f"no /dev/kvm; {slower}")]
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        fix = f"as root: usermod --append --groups kvm {_me()}; then log in again"
        return [Finding("kvm", "note", f"/dev/kvm is not ours to use; {slower}", fix)]
    kernel = store.find_kernel(home)
    if kernel is None:
        text = "/dev/kvm is there; a probe boot will tell, once there is a kernel"
        return [Finding("kvm", "note", text, "bugbox image build")]
    platform = _kvm_platform(home, settings, kernel.vmlinux)
    if platform is None:
        return [Finding("kvm", "note", f"a machine does not boot with /dev/kvm; {slower}")]
    return [Finding("kvm", "ok", f"a machine boots with -cpu {platform.cpu}")]


def _kvm_platform(home: Home, settings: Settings, vmlinux: Path) -> Platform | None:
    home.prepare()
    timeout = 10.0 * settings.timeout_factor
    return kvm_platform(home.cache / "kvm.json", settings.qemu, vmlinux, timeout=timeout)[0]


def _kvm_boots(home: Home, settings: Settings) -> bool:
    """Whether a probe has booted under KVM: its device being there proves nothing."""
    kernel = store.find_kernel(home)
    return kernel is not None and _kvm_platform(home, settings, kernel.vmlinux) is not None


def _firecracker(home: Home, settings: Settings) -> list[Finding]:
    """Not missing where nobody asked for it: QEMU does all that it does."""
    status: Literal["note", "missing"] = "missing" if settings.driver == "firecracker" else "note"
    try:
        path, _ = program_version(settings.firecracker)
    except HostError as error:
        return [Finding("firecracker", status, error.message, error.hint or "")]
    text = f"{_first_line(path)} ({path})"
    try:
        check_kvm()
    except HostError as error:
        return [Finding("firecracker", status, f"{text}, but {error.message}", error.hint or "")]
    if not _kvm_boots(home, settings):
        lie = f"{text}, but no machine was seen to boot with /dev/kvm"
        return [Finding("firecracker", status, lie, "--driver qemu works without")]
    if settings.firecracker_jail == "off":
        loud = f"{text}; it runs WITHOUT its jailer, as the settings say"
        return [Finding("firecracker", "note", loud, "unset firecracker_jail")]
    try:
        check_static(Path(path).resolve())
        jailer = jailer_path(settings.jailer)
    except HostError as error:
        text = f"{text}, but it cannot be jailed: {error.message}"
        return [Finding("firecracker", status, text, error.hint or "")]
    return [Finding("firecracker", "ok", f"{text}; {_first_line(jailer)} ({jailer})")]


def _first_line(program: str) -> str:
    said = proc.run([program, "--version"], timeout=20).stdout.decode(errors="replace")
    return said.splitlines()[0].strip()[:80] if said.strip() else "of no version"


def _tools(_home: Home, _settings: Settings) -> list[Finding]:
    wanted = [*_TOOLS, *(() if os.geteuid() == 0 else ("newuidmap",))]
    found, lacks = [], []
    for tool in wanted:
        try:
            proc.find(tool)
            found.append(tool)
        except BugboxError as error:
            lacks.append(_lack(tool, error, proc.PACKAGES.get(tool, "")))
    return [Finding("tools", "ok", ", ".join(found)), *lacks]


def _compiler(_home: Home, _settings: Settings) -> list[Finding]:
    ready_made = os.environ.get("BUGBOX_GUEST_BIN")
    if ready_made:
        return [Finding("compiler", "ok", f"not needed: {ready_made} has what runs in the guest")]
    for tool in ("musl-gcc", "gcc"):
        if _has(tool) and _has("make"):
            return [Finding("compiler", "ok", f"{tool}, make")]
    packages = "musl-tools gcc make"
    text = "no C compiler for what runs in the guest"
    return [Finding("compiler", "missing", text, f"apt-get install {packages}", packages)]


def _disks(home: Home, _settings: Settings) -> list[Finding]:
    can, cannot = [], []
    for name, way in STRATEGIES.items():
        try:
            way.require(home.sessions)
            can.append(name)
        except HostError as error:
            text = f"--disk {name} does not work here: {error.message}"
            cannot.append(Finding(f"disk {name}", "note", text, error.hint or ""))
    return [Finding("disks", "ok", ", ".join(can)), *cannot]


def _keyring(_home: Home, settings: Settings) -> list[Finding]:
    if _KEYRING.exists():
        return [Finding("keyring", "ok", str(_KEYRING))]
    package = "debian-archive-keyring"
    return [Finding("keyring", "missing", f"no {_KEYRING}", f"apt-get install {package}", package)]


def _rights(_home: Home, _settings: Settings) -> list[Finding]:
    if os.geteuid() == 0:
        return [Finding("rights", "ok", "root; machines run under user ids of their own")]
    as_root()
    return [Finding("rights", "ok", f"{_me()} has subordinate ids, and may use user namespaces")]


def _room(home: Home, _settings: Settings) -> list[Finding]:
    folder = home.root
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        fix = "set BUGBOX_HOME to a folder of yours"
        return [Finding("home", "missing", f"{home.root} cannot be written", fix)]
    free = shutil.disk_usage(folder).free
    text = f"{home.root}, {free >> 20} MiB free"
    if free < _DISK_NEEDED:
        fix = f"make room, or set BUGBOX_HOME; {_DISK_NEEDED >> 20} MiB are needed"
        return [Finding("home", "missing", text, fix)]
    return [Finding("home", "ok", text)]


def _runtime(home: Home, _settings: Settings) -> list[Finding]:
    text = str(home.runtime)
    if len(os.fsencode(text + _LONGEST_NAME)) > _SOCKET_LIMIT:
        return [Finding("sockets", "missing", f"{text} is too long", "set a shorter TMPDIR")]
    folder = home.runtime
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return [Finding("sockets", "missing", f"{text} cannot be made")]
    return [Finding("sockets", "ok", text)]


def _memory(_home: Home, _settings: Settings) -> list[Finding]:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
            status: Literal["ok", "note"] = "ok" if free >= _MEMORY_NEEDED else "note"
            return [Finding("memory", status, f"{free >> 20} MiB available")]
    return []


def _built(home: Home, _settings: Settings) -> list[Finding]:
    kernel, base = store.find_kernel(home), store.find_base(home)
    return [
        Finding("kernel", "ok", kernel.release)
        if kernel
        else Finding("kernel", "note", "not fetched yet", "the first start does it"),
        Finding("image", "ok", f"{base.name} {base.digest[:12]}")
        if base
        else Finding("image", "note", "no base image yet", "the first start builds it"),
    ]


def _keeper(home: Home, _settings: Settings) -> list[Finding]:
    try:
        told = client.request(home, "ping", start=False)
    except KeeperGone:
        return [Finding("keeper", "ok", "none runs; the next command that needs one starts it")]
    machines = "1 machine" if told["machines"] == 1 else f"{told['machines']} machines"
    return [Finding("keeper", "ok", f"{told['version']}, pid {told['pid']}, {machines}")]


_LOOKS: tuple[Callable[[Home, Settings], list[Finding]], ...] = (
    _version, _qemu, _kvm, _firecracker, _tools, _disks, _compiler, _keyring, _rights, _room,
    _runtime, _memory, _built, _keeper,
)  # fmt: skip


def _has(tool: str) -> bool:
    try:
        proc.find(tool)
    except BugboxError:
        return False
    return True


def _lack(id: str, error: BugboxError, package: str) -> Finding:
    return Finding(id, "missing", error.message, error.hint or "", package)


def _hint(error: BaseException) -> str:
    return (error.hint or "") if isinstance(error, BugboxError) else ""


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
