# SPDX-License-Identifier: Apache-2.0
"""Write an initramfs: a cpio archive in the "newc" form the kernel reads. A pure function.

Every header field but the sizes and modes is fixed, so equal entries give equal bytes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Entry", "archive", "directory", "file", "link"]

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in the archive, without a leading slash."""

    name: str
    mode: int
    data: bytes = b""


def directory(name: str, mode: int = 0o755) -> Entry:
    """Return an empty folder."""
    return Entry(name=name, mode=stat.S_IFDIR | mode)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """Return a regular file."""
    return Entry(name=name, mode=stat.S_IFREG | mode, data=data)


def link(name: str, target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, data=target.encode())


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive. A folder must come before what is in it: the kernel makes none itself."""
    out = bytearray()
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        parent = entry.name.rpartition("/")[0]
        if parent and parent not in seen:
            raise ValueError(f"{entry.name} comes before its folder")
        if entry.name in seen or entry.name.startswith("/") or not entry.name:
            raise ValueError(f"{entry.name!r} cannot be a name in this archive")
        if stat.S_ISDIR(entry.mode):
            seen.add(entry.name)
        _append(out, entry, number)
    _append(out, Entry(name=_TRAILER, mode=0), 0)
    # The kernel's loader wants a multiple of 4; 512 is what cpio itself writes.
    out += bytes(-len(out) % 512)
    return bytes(out)


def _append(out: bytearray, entry: Entry, number: int) -> None:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields)
    out += name
    out += bytes(-len(out) % 4)
    out += entry.data
    out += bytes(-len(out) % 4)
