# SPDX-License-Identifier: Apache-2.0
"""A layer's tar as values: a member, the limits that bind all, the error when a rule is broken."""

from __future__ import annotations

from dataclasses import dataclass, field

from bugbox.errors import BugboxError

__all__ = ["OPAQUE", "SAFE_DEVICES", "WHITEOUT", "ArchiveError", "Entry", "Limits"]

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

#: Character devices a layer may hold: null, zero, full, random, urandom, tty, console, ptmx.
SAFE_DEVICES = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)})


class ArchiveError(BugboxError):
    """A tar that breaks a rule; the message names the member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of everything a layer may have."""

    #: Of the tar itself, unpacked.
    bytes: int = 4 << 30
    #: Of all files together, their holes counted: what a copy without holes would take.
    apparent_bytes: int = 8 << 30
    members: int = 500_000
    #: Of the pax records before one member: names, and extended attributes up to 64 KiB each.
    header_bytes: int = 1 << 20
    name_bytes: int = 4096
    #: Of all names together, which are kept until the end.
    all_name_bytes: int = 64 << 20
    #: Pieces of data between the holes of one file.
    pieces: int = 100_000


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
    #: As `ls -l` shows it, holes counted.
    size: int = 0
    #: Where a symbolic link points to, as it stands there.
    target: str = ""
    #: The earlier member that this is another name of.
    link_to: str = ""
    #: Major and minor number.
    device: tuple[int, int] | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)
    #: Access control lists as GNU tar writes them: "access" and "default", with numbers for names.
    acls: dict[str, bytes] = field(default_factory=dict)
    #: Where a file with holes has data, as (offset, length); None: everywhere.
    data: tuple[tuple[int, int], ...] | None = None

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
