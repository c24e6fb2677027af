# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, from small pure functions; the golden test shows the whole of it.

QEMU opens no file by name. Whatever it reads or writes was opened by us and is inherited as a
descriptor, and so are the sockets it listens on: it needs no right on any of our folders, and can
run as a user of its own. `Descriptors` holds their numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from bugbox.machine.cmdline import Accel
from bugbox.machine.spec import Drive, MachineSpec, Nic

__all__ = [
    "LIFELINE_PORT",
    "Descriptors",
    "Platform",
    "arguments",
    "block_nodes",
    "drive_nodes",
]

#: What the lifeline looks for in /sys/class/virtio-ports.
LIFELINE_PORT = "bugbox.lifeline.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What the host can do, found out beforehand."""

    accel: Accel
    #: A CPU model that was seen to boot.
    cpu: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Numbers of the open files and listening sockets that QEMU inherits."""

    kernel: int
    initrd: int | None
    qmp: int
    console: int
    lifeline: int
    #: By node name: see `drive_nodes`.
    drives: dict[str, int] = field(default_factory=dict)
    #: A memory file to be the guest's memory; None: memory of no file.
    ram: int | None = None
    #: A pipe that a saved machine comes from: its devices, or all of it where there is no `ram`.
    state: int | None = None


def arguments(spec: MachineSpec, platform: Platform, files: Descriptors, append: str) -> list[str]:
    """Return everything after the program's name."""
    return [
        *_process(spec.id),
        *_machine(spec, platform, append),
        *_memory(spec, files),
        *_kernel(files, append),
        *_ports(files),
        *(arg for drive in spec.drives for arg in _drive(drive, files)),
        *(arg for nic in spec.nics for arg in _nic(nic)),
        *_sandbox(),
    ]


def drive_nodes(drive: Drive) -> Iterator[tuple[str, Drive]]:
    """Yield (node name, drive) for `drive` and what it lies over, the topmost first."""
    name, part, depth = drive.id, drive, 0
    while True:
        yield name, part
        if part.backing is None:
            return
        # The name comes from the place in the chain: two drives may share a base.
        depth += 1
        name, part = f"{drive.id}.{depth}", part.backing


def _process(id: str) -> list[str]:
    return [
        # Threads are named, so that `top -H` and a debugger tell the CPU from the disk.
        *("-name", f"guest={id},debug-threads=on"),
        *("-no-user-config", "-nodefaults"),
        *("-display", "none"),
        *("-msg", "timestamp=on"),
        # Nothing runs before we hold the monitor, the lifeline and the console.
        "-S",
        # A guest's reboot keeps the process; its poweroff leaves it paused, disk and all.
        *("-action", "reboot=reset,shutdown=pause"),
    ]


def _machine(spec: MachineSpec, platform: Platform, append: str) -> list[str]:
    if platform.accel == "kvm":
        timers = "pit=off,pic=off"  # KVM has better ones.
    elif "tsc_early_khz=" in append:
        # The PIT is of use to a kernel that must find out the processor's rate. After a reset it
        # ticks, and Linux before 6.13 does not stop one that it never used: 36 times a second
        # QEMU would wake for nothing (docs/decisions/0023).
        timers = "pit=off,pic=on"
    else:
        timers = "pit=on,pic=on"
    machine = (
        # ACPI announces the devices (Debian's kernel takes none from its arguments) and powers
        # off. Nothing is on a bus, and no option ROM is looked for.
        f"microvm,acpi=on,pcie=off,rtc=on,{timers},isa-serial=on"
        ",auto-kernel-cmdline=off,x-option-roms=off"
        # A crash's core file would hold the whole guest.
        ",memory-backend=ram,dump-guest-core=off"
    )
    return [
        *("-machine", machine),
        *("-accel", _accel(spec, platform)),
        *("-cpu", platform.cpu),
        *("-smp", str(spec.vcpus)),
        *("-m", f"{spec.mem_mib}M"),
        *("-rtc", "base=utc,clock=host"),
        *("-global", "virtio-mmio.force-legacy=off"),
        *("-device", "virtio-rng-device"),
    ]


def _memory(spec: MachineSpec, files: Descriptors) -> list[str]:
    size = f"{spec.mem_mib}M"
    # The monitor must say what to load before anything is: which memory is not in the stream.
    incoming = [] if files.state is None else ["-incoming", "defer"]
    if files.ram is None:
        # Shared memory is not made of huge pages, so what an idle guest never touched is not used.
        return ["-object", f"memory-backend-memfd,id=ram,size={size},share=on", *incoming]
    # A machine that will be saved writes to its file; what a clone writes stays its own.
    share = "on" if files.state is None else "off"
    ram = f"memory-backend-file,id=ram,size={size},mem-path={_opened(files.ram)},share={share}"
    return ["-object", ram, *incoming]


def _accel(spec: MachineSpec, platform: Platform) -> str:
    if platform.accel == "kvm":
        return "kvm"
    # thread=single turns the guest's clock on again when a stop meets its loop (QEMU 7.2,
    # accel/tcg/tcg-accel-ops-rr.c): a timer then falls due for ever, and the paused machine takes
    # up to a whole core. One CPU under thread=multi runs as fast. The translation cache grows to
    # its limit and is thrown away whole when full.
    return f"tcg,thread=multi,tb-size={TB_SIZE_MIB}"


TB_SIZE_MIB = 64


def _kernel(files: Descriptors, append: str) -> list[str]:
    initrd = [] if files.initrd is None else ["-initrd", _opened(files.initrd)]
    return ["-kernel", _opened(files.kernel), *initrd, "-append", append]


def _opened(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _ports(files: Descriptors) -> list[str]:
    port = f"virtserialport,id=lifeline,chardev=lifeline,name={LIFELINE_PORT}"
    return [
        *_socket("qmp", files.qmp),
        *("-mon", "chardev=qmp,mode=control"),
        *_socket("console", files.console),
        *("-serial", "chardev:console"),
        *_socket("lifeline", files.lifeline),
        *("-device", "virtio-serial-device,max_ports=2"),
        # With an id, the monitor tells when the guest opens and closes it.
        *("-device", port),
    ]


def _socket(id: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={id},fd={fd},server=on,wait=off"]


def _drive(drive: Drive, files: Descriptors) -> Iterator[str]:
    nodes = list(drive_nodes(drive))
    # The lowest first: a node is made before the one that lies over it.
    for number, (name, part) in reversed(list(enumerate(nodes))):
        fd = files.drives[name]
        yield from ("-add-fd", f"fd={fd},set={fd}")
        backing = nodes[number + 1][0] if part.backing is not None else None
        for node in block_nodes(name, part, fd, backing):
            yield from ("-blockdev", json.dumps(node, separators=(",", ":")))
    # A full host disk stops the machine instead of telling the guest of an error it would keep.
    yield from ("-device", f"virtio-blk-device,drive={drive.id},id=disk-{drive.id},werror=stop")


def block_nodes(name: str, part: Drive, fd: int, backing: str | None) -> list[dict[str, object]]:
    """Describe a file and the image in it, opened as the descriptor set `fd`."""
    read_only = part.read_only
    file: dict[str, object] = {
        "driver": "host_device" if part.device else "file",
        "node-name": f"{name}-file",
        "filename": f"/dev/fdset/{fd}",
        "read-only": read_only,
        "discard": "unmap",
    }
    if read_only:
        # It never changes. A machine that wrote to it until it was copied may still hold its lock.
        file["locking"] = "off"
    over: dict[str, object] = {
        "driver": part.format,
        "node-name": name,
        "file": f"{name}-file",
        "read-only": read_only,
        # What the guest deletes is given back to the host.
        "discard": "unmap",
    }
    if part.format == "qcow2":
        # Said here and never read from the header; null: it lies over nothing.
        over["backing"] = backing
    return [file, over]


def _nic(nic: Nic) -> list[str]:
    restrict = "on" if nic.restrict else "off"
    return [
        # User-mode: no rights, no device on the host. Restricted, it reaches nothing at all.
        *("-netdev", f"user,id={nic.id},restrict={restrict},ipv6=off"),
        *("-device", f"virtio-net-device,netdev={nic.id},mac={nic.mac}"),
    ]


def _sandbox() -> list[str]:
    # System calls that a machine never needs, starting programs above all.
    return [
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]
