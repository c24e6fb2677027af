# SPDX-License-Identifier: Apache-2.0
"""Read a layer's tar without extracting it. Whoever wrote it is not trusted.

A layer is what GNU tar writes (see tar_reader). Deletions are in the form OCI layers have: an empty
file `.wh.NAME` hides NAME, an empty file `.wh..wh..opq` hides all that its folder had before.

`scan` holds one header in memory at a time, skips contents, and knows limits for everything whose
size the writer chose; `members` gives the contents too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import BinaryIO

from bugbox.storage.acl import to_attribute
from bugbox.storage.entry import OPAQUE, SAFE_DEVICES, WHITEOUT, ArchiveError, Entry, Limits
from bugbox.storage.tar_reader import TarReader

__all__ = [
    "OPAQUE",
    "SAFE_DEVICES",
    "USUAL",
    "WHITEOUT",
    "ArchiveError",
    "Entry",
    "Limits",
    "members",
    "scan",
]


#: For a layer that nobody set limits for.
USUAL = Limits()


def scan(source: BinaryIO, limits: Limits = USUAL) -> Iterator[Entry]:
    """Yield every member of an uncompressed tar; ArchiveError at the first that breaks a rule."""
    for entry, _ in members(source, limits):
        yield entry


def members(source: BinaryIO, limits: Limits = USUAL) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """Yield every member with its contents, which are good until the next one is asked for."""
    reader = TarReader(source, limits)
    rules = _Rules(limits)
    count = 0
    while (entry := reader.next_entry()) is not None:
        count += 1
        if count > limits.members:
            raise ArchiveError(f"more than {limits.members} members")
        _check_alone(entry)
        rules.admit(entry)
        yield entry, reader.contents()


class _Rules:
    """What no single header shows: how members go together."""

    def __init__(self, limits: Limits) -> None:
        self.seen: dict[str, int] = {}
        self._left = limits.all_name_bytes

    def admit(self, entry: Entry) -> None:
        """Refuse a member that does not fit to those before it."""
        self._left -= len(entry.name)
        if self._left < 0:
            raise ArchiveError("the names of its members are too long together")
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


def _check_alone(entry: Entry) -> None:
    """Refuse what is wrong in itself, whatever came before."""
    name = entry.name
    if stat.S_ISBLK(entry.mode):
        raise ArchiveError(f"{name}: a block device")
    if stat.S_ISCHR(entry.mode) and entry.device not in SAFE_DEVICES:
        major, minor = entry.device or (0, 0)
        raise ArchiveError(f"{name}: character device {major}:{minor} is not allowed in a layer")
    for text in entry.acls.values():
        to_attribute(text)  # which refuses names: on another machine they are somebody else's
    last = name.rpartition("/")[2]
    if last.startswith(WHITEOUT):
        if not stat.S_ISREG(entry.mode) or entry.size or entry.link_to:
            raise ArchiveError(f"{name}: a deletion must be an empty file")
        if name == OPAQUE:
            raise ArchiveError(f"{name}: deletes the whole base")
        if last != OPAQUE and last.removeprefix(WHITEOUT) in ("", ".", ".."):
            raise ArchiveError(f"{name}: deletes no name")
        if last != OPAQUE and last.startswith(".wh..wh."):
            raise ArchiveError(f"{name}: not a deletion that we know")
