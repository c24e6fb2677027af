# SPDX-License-Identifier: Apache-2.0
"""Write a tar member by member, the same bytes for the same values: ustar with pax records.

For tars made on the host, of values: a layer in the form that OCI tools understand, a pack, a
bundle. Python's tarfile cannot write an extended attribute whose bytes are no text.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from typing import BinaryIO

from bugbox.storage.entry import Entry
from bugbox.storage.tar_reader import BLOCK

__all__ = ["TarWriter", "file_entry", "folder_entry"]

_OCTAL_7 = 0o7777777
_OCTAL_11 = 0o77777777777
_KINDS = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}


class TarWriter:
    """Writes to `out`; `close` writes the end. `sha256` and `size` are of all written so far."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self.sha256 = hashlib.sha256()
        self.size = 0

    def add(self, entry: Entry, contents: Iterable[bytes] = ()) -> None:
        """Write a member; `contents` must have exactly its size, holes as zeros."""
        records, fields = _fields(entry)
        if records:
            self._write(_header(b"PaxHeader", b"x", 0o644, 0, 0, len(records), 0))
            self._padded(records)
        self._write(fields)
        written = 0
        for data in contents:
            self._write(data)
            written += len(data)
        if written != (entry.size if not entry.link_to else 0):
            raise ValueError(f"{entry.name}: {written} bytes instead of {entry.size}")
        self._write(bytes(-written % BLOCK))

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))

    def _padded(self, data: bytes) -> None:
        self._write(data + bytes(-len(data) % BLOCK))

    def _write(self, data: bytes) -> None:
        self.out.write(data)
        self.sha256.update(data)
        self.size += len(data)


def file_entry(name: str, size: int, *, mode: int = 0o644, when: int = 0) -> Entry:
    """Describe a plain file of root's."""
    kind = stat.S_IFREG | mode
    return Entry(name=name, mode=kind, uid=0, gid=0, mtime_ns=when * 10**9, size=size)


def folder_entry(name: str, *, when: int = 0) -> Entry:
    """Describe a folder of root's."""
    return Entry(name=name, mode=stat.S_IFDIR | 0o755, uid=0, gid=0, mtime_ns=when * 10**9)


def _fields(entry: Entry) -> tuple[bytes, bytes]:
    """Return the pax records that a member needs, and its header."""
    name = _bytes(entry.name) + (b"/" if stat.S_ISDIR(entry.mode) and entry.name != "." else b"")
    if entry.name == ".":
        name = b"./"
    target = _bytes(entry.link_to or entry.target)
    seconds, fraction = divmod(entry.mtime_ns, 10**9)
    pax: dict[bytes, bytes] = {}
    if len(name) > 100:
        pax[b"path"] = name
    if len(target) > 100:
        pax[b"linkpath"] = target
    if entry.size > _OCTAL_11:
        pax[b"size"] = b"%d" % entry.size
    if fraction or not 0 <= seconds <= _OCTAL_11:
        pax[b"mtime"] = _time(entry.mtime_ns)
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number > _OCTAL_7:
            pax[key] = b"%d" % number
    pax |= {b"SCHILY.xattr." + _bytes(key): value for key, value in sorted(entry.xattrs.items())}
    pax |= {b"SCHILY.acl." + _bytes(key): value for key, value in sorted(entry.acls.items())}
    header = _header(
        name,
        b"1" if entry.link_to else _KINDS[stat.S_IFMT(entry.mode)],
        entry.mode & 0o7777,
        min(entry.uid, _OCTAL_7),
        min(entry.gid, _OCTAL_7),
        0 if entry.link_to else min(entry.size, _OCTAL_11),
        min(max(seconds, 0), _OCTAL_11),
        target,
        entry.device or (0, 0),
    )
    return b"".join(_record(key, value) for key, value in pax.items()), header


def _header(
    name: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    target: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    parts = (
        name[:100].ljust(100, b"\0"),
        b"%07o\0%07o\0%07o\0" % (mode, uid, gid),
        b"%011o\0%011o\0" % (size, mtime),
        b" " * 8,
        kind,
        target[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0%07o\0" % device,
    )
    header = b"".join(parts).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """Write "LENGTH KEY=VALUE\\n", where the length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return b"%d%s" % (length, rest)


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 10**9)
    return sign + b"%d" % seconds + (b".%09d" % fraction if fraction else b"")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
