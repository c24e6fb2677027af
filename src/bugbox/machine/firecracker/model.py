# SPDX-License-Identifier: Apache-2.0
"""What we send to Firecracker and read from it, as typed values. Pure.

A field is only sent to a version that knows it: an unknown one is an error there, and in a load of
a snapshot the end of the process. `Since` marks what came later than the oldest version we take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bugbox.errors import GuestError
from bugbox.machine.firecracker.version import Version

__all__ = [
    "Action",
    "BootSource",
    "Drive",
    "DriveChange",
    "Entropy",
    "Instance",
    "Interface",
    "Limit",
    "Limiter",
    "Logger",
    "MachineConfig",
    "MemoryBackend",
    "Metrics",
    "NetworkOverride",
    "Request",
    "Serial",
    "Since",
    "SnapshotCreate",
    "SnapshotLoad",
    "VmState",
    "Vsock",
    "VsockOverride",
    "document",
    "read_instance",
]


@dataclass(frozen=True, slots=True)
class Since:
    """The first version that knows a field, or a whole request."""

    version: Version


class _Value(BaseModel):
    """A part of a request. Fields that are None are not sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def body(self, version: Version) -> dict[str, Any]:
        """Return the JSON for this version; GuestError when it does not know a field."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value is None:
                continue
            for mark in field.metadata:
                if isinstance(mark, Since) and version < mark.version:
                    raise GuestError(f"Firecracker {version} has no {name}, {mark.version} has")
            found[name] = _plain(value, version)
        return found


def _plain(value: Any, version: Version) -> Any:
    if isinstance(value, _Value):
        return value.body(version)
    if isinstance(value, (list, tuple)):
        return [_plain(each, version) for each in value]
    return value


class Request(_Value):
    """The body of a request; where it is sent depends on its kind, and maybe on an id in it."""

    method: ClassVar[Literal["PUT", "PATCH"]] = "PUT"
    where: ClassVar[str]
    since: ClassVar[Version | None] = None

    @property
    def path(self) -> str:
        """The URL's path."""
        return self.where.format_map(dict(self))

    def body(self, version: Version) -> dict[str, Any]:
        """Return the JSON for this version; GuestError when it does not know the request."""
        if self.since is not None and version < self.since:
            raise GuestError(f"Firecracker {version} has no {self.where}, {self.since} has")
        return super().body(version)


class Limit(_Value):
    """A token bucket: `size` tokens, full again after `refill_time` ms."""

    size: int
    refill_time: int
    one_time_burst: int | None = None


class Limiter(_Value):
    """Limits of a device, in bytes and in operations."""

    bandwidth: Limit | None = None
    ops: Limit | None = None


class BootSource(Request):
    """What is booted."""

    where = "/boot-source"
    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str


class MachineConfig(Request):
    """CPUs and memory."""

    where = "/machine-config"
    vcpu_count: int
    mem_size_mib: int
    smt: bool | None = None
    track_dirty_pages: bool | None = None


class Drive(Request):
    """A block device, in the order of the guest's names for them."""

    where = "/drives/{drive_id}"
    drive_id: str
    path_on_host: str
    is_root_device: bool
    is_read_only: bool
    cache_type: Literal["Unsafe", "Writeback"] | None = None
    io_engine: Literal["Sync", "Async"] | None = None
    rate_limiter: Limiter | None = None


class DriveChange(Request):
    """Another file for a drive, while it is paused."""

    method = "PATCH"
    where = "/drives/{drive_id}"
    drive_id: str
    path_on_host: str


class Interface(Request):
    """A network card over a tap device, which must exist: as root Firecracker would make one."""

    where = "/network-interfaces/{iface_id}"
    iface_id: str
    host_dev_name: str
    guest_mac: str | None = None
    rx_rate_limiter: Limiter | None = None
    tx_rate_limiter: Limiter | None = None
    mtu: Annotated[int | None, Since(Version(1, 16))] = None


class Vsock(Request):
    """The sockets between host and guest."""

    where = "/vsock"
    guest_cid: int
    uds_path: str


class Entropy(Request):
    """Random numbers from the host."""

    where = "/entropy"
    rate_limiter: Limiter | None = None


class Serial(Request):
    """The serial console. Without a path it is the process's own output."""

    where = "/serial"
    since = Version(1, 14)
    serial_out_path: str | None = None
    rate_limiter: Annotated[Limit | None, Since(Version(1, 16))] = None


class Logger(Request):
    """Firecracker's own log."""

    where = "/logger"
    log_path: str
    level: Literal["Error", "Warning", "Info", "Debug"] | None = None


class Metrics(Request):
    """Where its numbers are written."""

    where = "/metrics"
    metrics_path: str


class Action(Request):
    """Something to do at once."""

    where = "/actions"
    action_type: Literal["InstanceStart", "SendCtrlAltDel", "FlushMetrics"]


class VmState(Request):
    """Stop the virtual CPUs, or let them run on."""

    method = "PATCH"
    where = "/vm"
    state: Literal["Paused", "Resumed"]


class SnapshotCreate(Request):
    """Write a paused machine to two files."""

    where = "/snapshot/create"
    snapshot_type: Literal["Full", "Diff"]
    snapshot_path: str
    mem_file_path: str


class MemoryBackend(_Value):
    """Where a loaded machine's memory comes from."""

    backend_type: Literal["File"] = "File"
    backend_path: str


class NetworkOverride(_Value):
    """A tap of its own for a clone."""

    iface_id: str
    host_dev_name: str


class VsockOverride(_Value):
    """A socket of its own for a clone."""

    uds_path: str


class SnapshotLoad(Request):
    """Load a machine into a fresh process. When it fails, that process is of no more use."""

    where = "/snapshot/load"
    snapshot_path: str
    mem_backend: MemoryBackend
    resume_vm: bool = False
    network_overrides: tuple[NetworkOverride, ...] | None = None
    vsock_override: Annotated[VsockOverride | None, Since(Version(1, 16))] = None
    clock_realtime: Annotated[bool | None, Since(Version(1, 16))] = None


class Instance(BaseModel):
    """What it says of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    state: Literal["Not started", "Running", "Paused"]
    vmm_version: str


def read_instance(value: object) -> Instance:
    """Read the answer to `GET /`; GuestError when it is something else."""
    try:
        return Instance.model_validate(value)
    except ValidationError as error:
        raise GuestError(
            f"Firecracker's answer is none we know: {error.errors()[0]['msg']}"
        ) from error


#: Sections of a configuration file that are lists.
_LISTS = {Drive: "drives", Interface: "network-interfaces"}


def document(requests: list[Request], version: Version) -> dict[str, Any]:
    """Join requests into a configuration file, which a process boots from by itself."""
    found: dict[str, Any] = {}
    for request in requests:
        body = request.body(version)
        if type(request) in _LISTS:
            found.setdefault(_LISTS[type(request)], []).append(body)
        else:
            found[request.where.lstrip("/")] = body
    # Firecracker insists on the section, even where there is nothing in it.
    found.setdefault("drives", [])
    return found
