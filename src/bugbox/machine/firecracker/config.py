# SPDX-License-Identifier: Apache-2.0
"""What a machine is in Firecracker's words: its requests, and its command line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bugbox.errors import UserError
from bugbox.machine.firecracker import model
from bugbox.machine.firecracker.model import Limit, Limiter, Request
from bugbox.machine.firecracker.version import Version
from bugbox.machine.spec import MachineSpec, Nic

__all__ = ["Names", "arguments", "requests"]

#: The guest's end of the vsock. The host's end is a UNIX socket of this machine's own, so that any
#: number of machines may have the same.
_GUEST_CID = 3
#: No guest takes all of the host's disk or network: bytes and operations a second, and a first
#: burst in which a boot has read what it needs.
_DISK = Limiter(
    bandwidth=Limit(size=32 << 20, refill_time=100, one_time_burst=1 << 30),
    ops=Limit(size=4000, refill_time=100, one_time_burst=200_000),
)
_NET = Limiter(bandwidth=Limit(size=4 << 20, refill_time=100, one_time_burst=64 << 20))
#: Serial output beyond it is dropped, in the host's favour: each byte is an exit of the guest.
_SERIAL = Limit(size=256 << 10, refill_time=1000, one_time_burst=1 << 20)
_SERIAL_LIMIT_SINCE = Version(1, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What Firecracker calls the machine's files: paths, or names inside its jail."""

    api: str
    config: str
    log: str
    vsock: str
    kernel: str
    initrd: str | None
    #: By drive.
    drives: Mapping[str, str] = field(default_factory=dict)


def arguments(id: str, names: Names) -> list[str]:
    """Return everything after the program's name; without an `id` where its jailer gives it one."""
    return [
        *(("--id", id) if id else ()),
        *("--api-sock", names.api),
        # Otherwise it would write into the console.
        *("--log-path", names.log, "--level", "Info"),
        *("--config-file", names.config),
    ]


def requests(spec: MachineSpec, names: Names, append: str, version: Version) -> list[Request]:
    """Return what makes the machine, in Firecracker's own order."""
    return [
        model.BootSource(
            kernel_image_path=names.kernel, initrd_path=names.initrd, boot_args=append
        ),
        model.MachineConfig(vcpu_count=spec.vcpus, mem_size_mib=spec.mem_mib),
        *(_drive(spec, number, names) for number in range(len(spec.drives))),
        *(_interface(nic) for nic in spec.nics),
        model.Vsock(guest_cid=_GUEST_CID, uds_path=names.vsock),
        # A guest without entropy waits for it, and a clone needs it anew.
        model.Entropy(),
        *([model.Serial(rate_limiter=_SERIAL)] if version >= _SERIAL_LIMIT_SINCE else []),
    ]


def _drive(spec: MachineSpec, number: int, names: Names) -> model.Drive:
    drive = spec.drives[number]
    if drive.format != "raw":
        raise UserError(f"Firecracker reads no {drive.format}: {drive.path}", hint="--disk copy")
    return model.Drive(
        drive_id=_plain(drive.id),
        path_on_host=names.drives[drive.id],
        # It would add its own `root=` to the kernel's arguments; ours say it.
        is_root_device=False,
        is_read_only=drive.read_only,
        # A flush reaches the host's page cache: the disk is for this session only.
        cache_type="Unsafe",
        io_engine="Sync",
        rate_limiter=_DISK,
    )


def _plain(id: str) -> str:
    """Return an id of the letters, digits and '_' that Firecracker allows."""
    return "".join(c if c.isalnum() else "_" for c in id)


def _interface(nic: Nic) -> model.Interface:
    if not nic.tap:
        raise UserError(
            "a Firecracker machine has no user-mode network card",
            hint="--driver qemu, or a puzzle without ports and with network.egress: none",
        )
    return model.Interface(
        iface_id=_plain(nic.id),
        host_dev_name=nic.tap,
        guest_mac=nic.mac,
        rx_rate_limiter=_NET,
        tx_rate_limiter=_NET,
    )
