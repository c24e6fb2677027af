# SPDX-License-Identifier: Apache-2.0
"""POSIX access control lists: as text, the way GNU tar keeps them, and as the kernel's attribute.

In a layer's tar a list is text with numbers for names, `user:1000:r--`. OCI tools know nothing of
that and carry the attributes `system.posix_acl_access` and `…_default` instead, so an export turns
the one into the other, and an import turns it back. See acl(5) and <linux/posix_acl_xattr.h>.
"""

from __future__ import annotations

import re
import struct

from bugbox.storage.entry import ArchiveError

__all__ = ["ATTRIBUTES", "from_attribute", "to_attribute"]

#: The attribute that holds each kind of list.
ATTRIBUTES = {"access": "system.posix_acl_access", "default": "system.posix_acl_default"}

_VERSION = 2
_NOBODY = 0xFFFFFFFF
#: Kind and whether it is for somebody named: the kernel's tag. In the order the kernel wants.
_TAGS = {
    ("user", False): 0x01,
    ("user", True): 0x02,
    ("group", False): 0x04,
    ("group", True): 0x08,
    ("mask", False): 0x10,
    ("other", False): 0x20,
}
_KINDS = {tag: key for key, tag in _TAGS.items()}
_LINE = re.compile(r"(user|group|mask|other):([0-9]{0,10}):([r-][w-][x-])")
_MOST = 10_000


def to_attribute(text: bytes) -> bytes:
    """Turn a list's text into the attribute's value; ArchiveError when it is none."""
    entries: list[tuple[int, int, int]] = []
    # GNU tar ends entries with a newline, star separates them by commas.
    for word in re.split("[,\n]", text.decode("ascii", "replace")):
        line = word.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if not match or (match[1], bool(match[2])) not in _TAGS or len(entries) > _MOST:
            raise ArchiveError(
                f"{line[:80]!r} is not an entry of an access control list by numbers"
            )
        tag = _TAGS[match[1], bool(match[2])]
        rights = sum(4 >> n for n, letter in enumerate(match[3]) if letter != "-")
        entries.append((tag, int(match[2] or _NOBODY), rights))
    if any(id > _NOBODY for _, id, _ in entries):
        raise ArchiveError("an access control list for a number that is too large")
    packed = [struct.pack("<HHI", tag, rights, id) for tag, id, rights in sorted(entries)]
    return struct.pack("<I", _VERSION) + b"".join(packed)


def from_attribute(value: bytes) -> bytes:
    """Turn the attribute's value into the text GNU tar writes; ArchiveError when it is none."""
    if len(value) % 8 != 4 or struct.unpack_from("<I", value)[0] != _VERSION:
        raise ArchiveError("an access control list in an unknown form")
    lines = []
    for tag, rights, id in struct.iter_unpack("<HHI", value[4:]):
        if tag not in _KINDS or rights > 7:
            raise ArchiveError("an access control list with an unknown entry")
        kind, named = _KINDS[tag]
        shown = "".join(letter if rights & 4 >> n else "-" for n, letter in enumerate("rwx"))
        lines.append(f"{kind}:{id if named else ''}:{shown}\n")
    return "".join(lines).encode()
