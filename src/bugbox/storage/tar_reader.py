# SPDX-License-Identifier: Apache-2.0
"""Headers and contents out of an uncompressed tar, one at a time and bounded.

Known is what GNU tar writes with `--format=posix --sparse --xattrs --acls --numeric-owner`: ustar
headers with pax records before them, and files with holes in GNU's format 1.0. Anything else is
refused rather than guessed at. Python's tarfile has no limits: it believes the size of any pax
record.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

from bugbox.storage.entry import ArchiveError, Entry, Limits

__all__ = ["BLOCK", "TarReader"]

BLOCK = 512
_PIECE = 1 << 20
_TYPES = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"1": stat.S_IFREG,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_SPARSE = "GNU.sparse."
_PAX_NAMES = frozenset(
    {"path", "linkpath", "size", "mtime", "uid", "gid", "uname", "gname"}
    | {_SPARSE + name for name in ("major", "minor", "name", "realsize")}
)
#: Times that are not of a file's contents; others' tars have them, and they say nothing here.
_IGNORED = frozenset({"atime", "ctime"})
_XATTR = "SCHILY.xattr."
_ACL = "SCHILY.acl."


class TarReader:
    """Yields members by `next_entry`; until the next call, `contents` reads what the last holds."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.read_bytes = 0
        self.apparent_bytes = 0
        #: Of the last member's data, so much is still to be read, and so much padding behind it.
        self._left = 0
        self._padding = 0
        self._last: Entry | None = None

    def next_entry(self) -> Entry | None:
        """Return the next member; None at the end of the archive."""
        self._skip(self._left + self._padding)
        self._left = self._padding = 0
        pax: dict[str, bytes] = {}
        while True:
            header = self._block()
            if header is None:
                if pax:
                    raise ArchiveError("ends after a pax record")
                return None
            if header[156:157] != b"x":
                self._last = self._entry(header, pax)
                return self._last
            if pax:
                raise ArchiveError("two pax headers before one member")
            pax = self._pax(_number(header[124:136]))

    def contents(self) -> Iterator[bytes]:
        """Yield the last member's contents in pieces, holes as zeros; once."""
        entry = self._last
        if entry is None or not self._left:
            areas: tuple[tuple[int, int], ...] = ()
        else:
            areas = entry.data if entry.data is not None else ((0, entry.size),)
        at = 0
        for offset, length in (*areas, (entry.size if entry else 0, 0)):
            while at < offset:
                hole = min(offset - at, _PIECE)
                yield bytes(hole)
                at += hole
            while at < offset + length:
                data = self._take(min(offset + length - at, _PIECE))
                self._left -= len(data)
                at += len(data)
                yield data

    def _block(self) -> bytes | None:
        header = self._take(BLOCK)
        if header == bytes(BLOCK):
            self._only_padding()
            return None
        if header[257:263] != b"ustar\0":
            raise ArchiveError("not a tar archive, or not a ustar header")
        unsigned = sum(header[:148]) + 8 * 0x20 + sum(header[156:])
        if _number(header[148:156]) != unsigned:
            raise ArchiveError("a header's checksum is wrong")
        return header

    def _only_padding(self) -> None:
        while data := self.source.read(1 << 16):
            self._count(len(data))
            if data.strip(b"\0"):
                raise ArchiveError("goes on after its end")

    def _pax(self, size: int) -> dict[str, bytes]:
        if size > self.limits.header_bytes:
            raise ArchiveError(f"a pax header of {size} bytes")
        data = self._take(size)
        self._skip(-size % BLOCK)
        return dict(_records(data))

    def _entry(self, header: bytes, pax: dict[str, bytes]) -> Entry:
        kind = header[156:157]
        if kind not in _TYPES:
            raise ArchiveError(f"members of type {kind!r} are not supported")
        sparse = any(key.startswith(_SPARSE) for key in pax)
        path = pax.get(f"{_SPARSE}name") if sparse else pax.get("path")
        name = self._name(path or _path(header))
        size = _decimal(pax["size"]) if "size" in pax else _number(header[124:136])
        if kind not in (b"0", b"\0") and (size or sparse):
            raise ArchiveError(f"{name}: contents where none belong")
        self._left, self._padding = size, -size % BLOCK
        target = pax.get("linkpath") or _until_nul(header[157:257])
        entry = Entry(
            name=name,
            mode=_TYPES[kind] | (_number(header[100:108]) & 0o7777),
            uid=_decimal(pax["uid"]) if "uid" in pax else _number(header[108:116]),
            gid=_decimal(pax["gid"]) if "gid" in pax else _number(header[116:124]),
            mtime_ns=_nanoseconds(pax["mtime"])
            if "mtime" in pax
            else _number(header[136:148]) * 10**9,
            size=size,
            target=_text(target) if kind == b"2" else "",
            link_to=self._name(target) if kind == b"1" else "",
            device=_device(header) if kind in b"34" else None,
            xattrs=_xattrs(name, pax),
            acls=_acls(name, pax),
        )
        if sparse:
            entry = self._with_holes(entry, pax)
        self.apparent_bytes += entry.size
        if self.apparent_bytes > self.limits.apparent_bytes:
            most = self.limits.apparent_bytes >> 20
            raise ArchiveError(f"{name}: with it the files are larger than {most} MiB, holes too")
        return entry

    def _with_holes(self, entry: Entry, pax: dict[str, bytes]) -> Entry:
        """Read the map that lies before the data of a file with holes (GNU's format 1.0)."""
        version = pax.get(f"{_SPARSE}major"), pax.get(f"{_SPARSE}minor")
        if version != (b"1", b"0") or not {f"{_SPARSE}name", f"{_SPARSE}realsize"} <= pax.keys():
            raise ArchiveError(f"{entry.name}: holes in a format that is not supported")
        real = _decimal(pax[f"{_SPARSE}realsize"])
        numbers = self._map_numbers(entry.name)
        count = next(numbers)
        if count > self.limits.pieces:
            raise ArchiveError(f"{entry.name}: more than {self.limits.pieces} pieces between holes")
        areas, end = [], 0
        for _ in range(count):
            offset, length = next(numbers), next(numbers)
            if offset < end or offset + length > real:
                raise ArchiveError(f"{entry.name}: its map of holes makes no sense")
            end = offset + length
            areas.append((offset, length))
        if sum(length for _, length in areas) != self._left:
            raise ArchiveError(f"{entry.name}: its map of holes does not fit its data")
        return replace(entry, size=real, data=tuple(area for area in areas if area[1]))

    def _map_numbers(self, name: str) -> Iterator[int]:
        """Yield decimal numbers, one a line, from as many blocks as it takes."""
        rest = b""
        while True:
            if self._left < BLOCK:
                raise ArchiveError(f"{name}: its map of holes has no end")
            self._left -= BLOCK
            *lines, rest = (rest + self._take(BLOCK)).split(b"\n")
            if len(rest) > BLOCK:  # padding behind the last number stays below that
                raise ArchiveError(f"{name}: its map of holes makes no sense")
            yield from map(_decimal, lines)

    def _name(self, raw: bytes) -> str:
        if len(raw) > self.limits.name_bytes:
            raise ArchiveError(f"a name of {len(raw)} bytes")
        name = _text(raw)
        if name.startswith("/"):
            raise ArchiveError(f"{name}: an absolute name")
        if name in (".", "./"):
            return "."
        parts = name.removeprefix("./").removesuffix("/").split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ArchiveError(f"{name or '(empty)'}: not a plain name below the root")
        if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in parts):
            raise ArchiveError(f"{name[:80]}…: a part of the name is longer than 255 bytes")
        return "/".join(parts)

    def _take(self, size: int) -> bytes:
        data = self.source.read(size)
        if len(data) < size:
            raise ArchiveError("ends in the middle of a member")
        self._count(size)
        return data

    def _skip(self, size: int) -> None:
        self._count(size)
        while size:
            data = self.source.read(min(size, _PIECE))
            if not data:
                raise ArchiveError("ends in the middle of a member")
            size -= len(data)

    def _count(self, size: int) -> None:
        self.read_bytes += size
        if self.read_bytes > self.limits.bytes:
            raise ArchiveError(f"larger than {self.limits.bytes >> 20} MiB")


def _records(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Split pax records: "LENGTH KEY=VALUE\\n", the length counting itself."""
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0:
            raise ArchiveError("a pax record without a length")
        end = at + _decimal(data[at:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or end > len(data) or not equals or data[end - 1 : end] != b"\n":
            raise ArchiveError("a pax record of a wrong length")
        name = _text(key)
        if name not in _PAX_NAMES | _IGNORED and not name.startswith((_XATTR, _ACL)):
            raise ArchiveError(f"pax records named {name[:80]} are not supported")
        if name not in _IGNORED:
            yield name, value
        at = end


def _xattrs(name: str, pax: dict[str, bytes]) -> dict[str, bytes]:
    found = {k.removeprefix(_XATTR): v for k, v in pax.items() if k.startswith(_XATTR)}
    for key in found:
        if key.startswith(("trusted.overlay.", "user.overlay.")):
            raise ArchiveError(f"{name}: carries {key}, which is overlayfs' own")
    return found


def _acls(name: str, pax: dict[str, bytes]) -> dict[str, bytes]:
    found = {k.removeprefix(_ACL): v for k, v in pax.items() if k.startswith(_ACL)}
    if not found.keys() <= {"access", "default"}:
        raise ArchiveError(f"{name}: an access control list of an unknown kind")
    return found


def _number(octal: bytes) -> int:
    """Read a header's number: octal digits, or GNU's base 256 when the first bit is set."""
    if octal[0] & 0x80:
        if octal[0] != 0x80:
            raise ArchiveError("a number below zero")
        return int.from_bytes(octal[1:], "big")
    digits = octal.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= each <= 0x37 for each in digits):
        raise ArchiveError("a number that is none")
    return int(digits, 8)


def _decimal(value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise ArchiveError("a number that is none")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    """Read a pax time: decimal seconds, perhaps below zero, perhaps with a fraction."""
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if fraction and not fraction.isdigit():
        raise ArchiveError("a time that is none")
    whole = _decimal(seconds) * 10**9 + int(fraction[:9].ljust(9, b"0"))
    return -whole if value.startswith(b"-") else whole


def _path(header: bytes) -> bytes:
    prefix = _until_nul(header[345:500])
    name = _until_nul(header[:100])
    return prefix + b"/" + name if prefix else name


def _device(header: bytes) -> tuple[int, int]:
    return _number(header[329:337]), _number(header[337:345])


def _until_nul(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _text(data: bytes) -> str:
    if b"\0" in data:
        raise ArchiveError("a name with a NUL byte")
    return data.decode("utf-8", "surrogateescape")
