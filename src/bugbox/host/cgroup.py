# SPDX-License-Identifier: Apache-2.0
"""Control groups of either version: where they are, what a limit is called, and their end.

On a host with version 2 every controller is below one mount; with version 1 each has a mount of its
own; there are hosts with both, where version 2 has no controllers. We take version 2 where it can
limit memory, CPU and processes, else version 1.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import HostError, StateError
from bugbox.host.proc import Process, start_time

__all__ = ["Cgroups", "Limits", "device_of", "find", "parse_mounts"]

_NEEDED = ("memory", "cpu", "pids")
_PERIOD = 100_000
_GONE_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the processes of one group may take together."""

    memory_bytes: int
    #: Cores; 0.5 is half of one.
    cpus: float
    pids: int
    #: Bytes a second read, and as many written, on the disk that `device` names; 0: no limit.
    io_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The version we use and each controller's mount; one of version 2 has one for all."""

    version: int
    mounts: dict[str, Path]

    def settings(self, limits: Limits) -> list[str]:
        """Return `file=value` of each limit, as the jailer takes it; input and output apart."""
        quota = max(1000, round(limits.cpus * _PERIOD))
        if self.version == 2:
            return [
                f"memory.max={limits.memory_bytes}",
                f"cpu.max={quota} {_PERIOD}",
                f"pids.max={limits.pids}",
            ]
        return [
            f"memory.limit_in_bytes={limits.memory_bytes}",
            f"cpu.cfs_period_us={_PERIOD}",
            f"cpu.cfs_quota_us={quota}",
            f"pids.max={limits.pids}",
        ]

    def limit_io(self, name: str, device: str, io_bytes: int) -> bool:
        """Make the group and limit its reading and writing; False: this host cannot.

        The jailer cannot set this one: its values have a `=` in them.
        """
        if self.version != 2 or not io_bytes:
            return False
        group = self.mounts["memory"] / name
        group.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            for folder in [*reversed(group.parents)]:
                if folder.is_relative_to(self.mounts["memory"]):
                    (folder / "cgroup.subtree_control").write_text("+io")
            (group / "io.max").write_text(f"{device} rbps={io_bytes} wbps={io_bytes}")
        except OSError:  # no such controller, or a disk that cannot be told apart
            return False
        return True

    def folders(self, name: str) -> list[Path]:
        """Return where the group `name` is, in every mount where it is."""
        places = {mount / name for mount in self.mounts.values()}
        return sorted(place for place in places if place.is_dir())

    def processes(self, name: str) -> list[int]:
        """Return the processes in the group."""
        found: set[int] = set()
        for folder in self.folders(name):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
        return sorted(found)

    def remove(self, name: str) -> None:
        """Kill what is in the group, and remove it; and the folder above it, when it is empty.

        What is killed may have started others a moment before, so it is asked again each time.
        """
        until = time.monotonic() + _GONE_TIMEOUT
        above = {mount / Path(name).parent for mount in self.mounts.values()}
        while not self._ended(name):
            if time.monotonic() > until:
                where = ", ".join(map(str, self.folders(name)))
                raise StateError(f"{where} cannot be removed", hint="look into cgroup.procs")
            time.sleep(0.01)
        for folder in above - set(self.mounts.values()):
            with contextlib.suppress(OSError):  # others are in it, or it is not there
                folder.rmdir()

    def _ended(self, name: str) -> bool:
        for folder in self.folders(name):
            with contextlib.suppress(OSError):  # Linux 5.14 and later: all of them at once
                fd = os.open(folder / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"1")
                finally:
                    os.close(fd)
        for pid in self.processes(name):
            if (started := start_time(pid)) is not None:
                Process(pid=pid, started=started).kill()
        return all(_removed(folder) for folder in self.folders(name))


def find(mounts: Path = Path("/proc/self/mounts")) -> Cgroups:
    """Return the groups that this host has. HostError: none that can limit a machine."""
    one, two = parse_mounts(mounts.read_text())
    if two is not None:
        with contextlib.suppress(OSError):
            has = (two / "cgroup.controllers").read_text().split()
            if all(each in has for each in _NEEDED):
                return Cgroups(2, dict.fromkeys(has, two))
    if all(each in one for each in _NEEDED):
        return Cgroups(1, {name: one[name] for name in _NEEDED})
    raise HostError(
        f"this host has no control groups for {', '.join(_NEEDED)}",
        hint="mount them: cgroup version 2 on /sys/fs/cgroup",
    )


def parse_mounts(text: str) -> tuple[dict[str, Path], Path | None]:
    """Read /proc/mounts: each controller's mount of version 1, and the mount of version 2."""
    one: dict[str, Path] = {}
    two = None
    for kind, place, options in _mounts(text):
        if kind == "cgroup2":
            two = two or place
        elif kind == "cgroup":
            for option in options:
                one.setdefault(option, place)
    return one, two


def device_of(path: Path) -> str | None:
    """Return `major:minor` of the whole disk that `path` lies on; None: on none of its own."""
    number = path.stat().st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    place = Path("/sys/dev/block", name)
    if not place.exists():
        return None
    if (place / "partition").exists():
        return (place.resolve().parent / "dev").read_text().strip()
    return name


def _mounts(text: str) -> Iterator[tuple[str, Path, list[str]]]:
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 4:
            yield words[2], Path(words[1]), words[3].split(",")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
