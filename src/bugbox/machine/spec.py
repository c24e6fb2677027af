# SPDX-License-Identifier: Apache-2.0
"""What a machine should be: pure values, the same for every driver."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Drive", "Kernel", "MachineSpec", "Nic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """A block device shown to the guest as virtio-blk; /dev/vda is the first."""

    id: str
    path: Path
    format: Literal["raw", "qcow2"]
    read_only: bool = False
    #: The path is a block device's, not a file's.
    device: bool = False
    #: What a qcow2 lies over. Named here, never read from its header: the header is data.
    backing: Drive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """A network card with a user-mode backend that reaches neither the host nor the network.

    Or, for a VMM that has no such thing, over a tap device, which then decides what it reaches.
    """

    id: str
    mac: str
    #: False lets the guest out through the host's network.
    restrict: bool = True
    #: A tap device's name; empty: user-mode.
    tap: str = ""
    #: With restrict=False: "host:port" of each that it reaches, and nothing else; None: everything.
    reach: tuple[str, ...] | None = None
    #: With reach: any name is looked up for the guest; otherwise those in it.
    names: bool = False
    #: With reach: what lies in private networks or on this host is among it.
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What is booted: an uncompressed kernel with a PVH note, an initramfs, its arguments."""

    vmlinux: Path
    initrd: Path | None
    release: str
    #: Added after the arguments that the driver's own function makes.
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One machine. `root` and `runtime` are its own folders, made by the caller."""

    id: str
    kernel: Kernel
    drives: tuple[Drive, ...]
    nics: tuple[Nic, ...] = ()
    vcpus: int = 1
    mem_mib: int = 256
    #: Console log, VMM log and argv go here (paths.SessionPaths names them).
    root: Path
    #: Sockets go here; short.
    runtime: Path
    #: The VMM's user and group when we are root; None: our own.
    uid: int | None = None
    #: Seconds from the VMM's start to the lifeline's hello before the boot counts as failed.
    boot_timeout: float = 60.0
