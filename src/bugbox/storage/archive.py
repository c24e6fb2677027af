# SPDX-License-Identifier: Apache-2.0
"""Read a layer's tar without extracting it. Whoever wrote it is not trusted.

A layer is what GNU tar writes with `--format=posix --xattrs --acls --numeric-owner`: ustar headers
with pax records before them. Deletions are in the form OCI layers have: an empty file `.wh.NAME`
hides NAME, an empty file `.wh..wh..opq` hides all that its folder had before. Anything else, be
it old GNU headers, sparse files or global records, is refused rather than guessed at.

`scan` holds one header in memory at a time, skips contents, and knows limits for everything whose
size the writer chose. Python's tarfile has none: it believes the size of a pax record.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from bugbox.errors import BugboxError

__all__ = ["OPAQUE", "SAFE_DEVICES", "WHITEOUT", "ArchiveError", "Entry", "Limits", "scan"]

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

#: Character devices a layer may hold: null, zero, full, random, urandom, tty, console, ptmx.
SAFE_DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})

_BLOCK = 512
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
_PAX_NAMES = frozenset({"path", "linkpath", "size", "mtime", "uid", "gid", "uname", "gname"})
_XATTR = "SCHILY.xattr."
_ACL = "SCHILY.acl."


class ArchiveError(BugboxError):
    """A tar that breaks a rule; the message names the member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything a layer may have."""

    bytes: int = 4 << 30
    members: int = 500_000
    #: Of the pax records before one member: names, and extended attributes up to 64 KiB each.
    header_bytes: int = 1 << 20
    name_bytes: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member: a name below the root, and what becomes of it."""

    #: Relative, without `./` or a slash at its end; `.` is the root itself.
    name: str
    #: File type and permission bits, as in stat.
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    #: Where a symbolic link points to, as it stands there.
    target: str = ""
    #: The earlier member that this is another name of.
    link_to: str = ""
    #: Major and minor number.
    device: tuple[int, int] | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)

    @property
    def hides(self) -> str | None:
        """What a whiteout deletes: a name, or for an opaque mark its folder's former contents."""
        folder, _, last = self.name.rpartition("/")
        if last == OPAQUE:
            return folder or "."
        if last.startswith(WHITEOUT):
            shown = last.removeprefix(WHITEOUT)
            return f"{folder}/{shown}" if folder else shown
        return None


def scan(source: BinaryIO, limits: Limits = Limits()) -> Iterator[Entry]:
    """Yield every member of an uncompressed tar; ArchiveError at the first that breaks a rule."""
    reader = _Reader(source, limits)
    rules = _Rules()
    count = 0
    while (entry := reader.next_entry()) is not None:
        count += 1
        if count > limits.members:
            raise ArchiveError(f"more than {limits.members} members")
        rules.admit(entry)
        yield entry


class _Rules:
    """What no single header shows: how members go together."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def admit(self, entry: Entry) -> None:
        """Refuse a member that does not fit to those before it."""
        if entry.name in self.seen:
            raise ArchiveError(f"{entry.name}: twice in the archive")
        self._below_folders_only(entry)
        if entry.link_to and not stat.S_ISREG(self.seen.get(entry.link_to, 0)):
            message = f"{entry.name}: a hard link to {entry.link_to}, which is no file before it"
            raise ArchiveError(message)
        folder, slash, last = entry.name.rpartition("/")
        hidden = f"{folder}{slash}{last.removeprefix(WHITEOUT)}"
        hider = f"{folder}{slash}{WHITEOUT}{last}"
        if hider in self.seen or (hidden != entry.name and hidden in self.seen):
            raise ArchiveError(f"{entry.name}: both deleted and written")
        self.seen[entry.name] = entry.mode

    def _below_folders_only(self, entry: Entry) -> None:
        parent = entry.name
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent not in self.seen:
                # Named later, it would come after its contents; a tar sorted by name never does.
                raise ArchiveError(f"{entry.name}: its folder {parent} does not come before it")
            if not stat.S_ISDIR(self.seen[parent]):
                raise ArchiveError(f"{entry.name}: lies below {parent}, which is not a folder")


class _Reader:
    """Headers out of a stream, bounded."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.read_bytes = 0

    def next_entry(self) -> Entry | None:
        """Return the next member; None at the end of the archive."""
        pax: dict[str, bytes] = {}
        while True:
            header = self._block()
            if header is None:
                if pax:
                    raise ArchiveError("ends after a pax record")
                return None
            if header[156:157] != b"x":
                return self._entry(header, pax)
            if pax:
                raise ArchiveError("two pax headers before one member")
            pax = self._pax(_number(header[124:136]))

    def _block(self) -> bytes | None:
        header = self._take(_BLOCK)
        if header == bytes(_BLOCK):
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
        self._skip(-size % _BLOCK)
        return dict(_records(data))

    def _entry(self, header: bytes, pax: dict[str, bytes]) -> Entry:
        kind = header[156:157]
        if kind not in _TYPES:
            raise ArchiveError(f"members of type {kind!r} are not supported")
        name = self._name(pax.get("path") or _path(header))
        size = _decimal(pax["size"]) if "size" in pax else _number(header[124:136])
        if kind not in (b"0", b"\0") and size:
            raise ArchiveError(f"{name}: contents where none belong")
        self._skip(size + -size % _BLOCK)
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
        )
        _check_alone(entry)
        return entry

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
            data = self.source.read(min(size, 1 << 20))
            if not data:
                raise ArchiveError("ends in the middle of a member")
            size -= len(data)

    def _count(self, size: int) -> None:
        self.read_bytes += size
        if self.read_bytes > self.limits.bytes:
            raise ArchiveError(f"larger than {self.limits.bytes >> 20} MiB")


def _check_alone(entry: Entry) -> None:
    """Refuse what is wrong in itself, whatever came before."""
    name = entry.name
    if stat.S_ISBLK(entry.mode):
        raise ArchiveError(f"{name}: a block device")
    if stat.S_ISCHR(entry.mode) and entry.device not in SAFE_DEVICES:
        major, minor = entry.device or (0, 0)
        raise ArchiveError(f"{name}: character device {major}:{minor} is not allowed in a layer")
    last = name.rpartition("/")[2]
    if last.startswith(WHITEOUT):
        if not stat.S_ISREG(entry.mode) or entry.size or entry.link_to:
            raise ArchiveError(f"{name}: a deletion must be an empty file")
        if last != OPAQUE and last.removeprefix(WHITEOUT) in ("", ".", ".."):
            raise ArchiveError(f"{name}: deletes no name")
        if last != OPAQUE and last.startswith(".wh..wh."):
            raise ArchiveError(f"{name}: not a deletion that we know")


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
        if name not in _PAX_NAMES and not name.startswith((_XATTR, _ACL)):
            raise ArchiveError(f"pax records named {name[:80]} are not supported")
        yield name, value
        at = end


def _xattrs(name: str, pax: dict[str, bytes]) -> dict[str, bytes]:
    found = {k.removeprefix(_XATTR): v for k, v in pax.items() if k.startswith(_XATTR)}
    for key in found:
        if key.startswith(("trusted.overlay.", "user.overlay.")):
            raise ArchiveError(f"{name}: carries {key}, which is overlayfs' own")
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
