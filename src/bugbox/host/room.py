# SPDX-License-Identifier: Apache-2.0
"""How much memory this host can still give: what the kernel says, and what our cgroups allow.

A container may be allowed less than the host has. Both versions of cgroups are looked at, each in
its usual place; where a file is not there, it sets no limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Room", "memory"]

_SLICES = Path("/sys/fs/cgroup")
#: Below this a cgroup's limit is one; version 1 writes "none" as a number near 2^63.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Memory in bytes."""

    total: int
    #: What programs may still take without anything else being pushed out.
    available: int


def memory(proc: Path = Path("/proc"), slices: Path = _SLICES) -> Room:
    """Return what the host has, or what our cgroup is allowed of it, whichever is less."""
    told = _numbers((proc / "meminfo").read_text(), unit=1024)
    room = Room(total=told["MemTotal:"], available=told["MemAvailable:"])
    for limit, used in _limits((proc / "self/cgroup").read_text(), slices):
        left = max(0, limit - used)
        room = Room(total=min(room.total, limit), available=min(room.available, left))
    return room


def _limits(cgroups: str, slices: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, used without what can be dropped) of each of our cgroups that has a limit."""
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            folder, names = slices / "memory", ("limit_in_bytes", "usage_in_bytes", "total_")
        elif controllers == "":
            folder, names = slices, ("max", "current", "")
        else:
            continue
        for each in _upwards(folder, path):
            found = _limit(each, *names)
            if found is not None:
                yield found


def _upwards(folder: Path, path: str) -> Iterator[Path]:
    """Yield our cgroup's folder and those above it, which limit it as well."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for count in range(len(parts), -1, -1):
        yield folder.joinpath(*parts[:count])


def _limit(folder: Path, limit: str, used: str, prefix: str) -> tuple[int, int] | None:
    try:
        text = (folder / f"memory.{limit}").read_text().strip()
        most = _NO_LIMIT if text == "max" else int(text)
        if most >= _NO_LIMIT:
            return None
        taken = int((folder / f"memory.{used}").read_text())
        stat = _numbers((folder / "memory.stat").read_text(), unit=1)
    except (OSError, ValueError):
        return None
    return most, max(0, taken - stat.get(f"{prefix}inactive_file", 0))


def _numbers(text: str, *, unit: int) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines())
    return {words[0]: int(words[1]) * unit for words in lines if len(words) > 1}
