# SPDX-License-Identifier: Apache-2.0
"""What a file of a base image is, read from the image without mounting it.

debugfs (e2fsprogs) reads the filesystem's structures itself. Only for images that we made: it is
not meant for those that a guest has written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bugbox.host import proc

__all__ = ["BaseFile", "look", "parse"]

_TIMEOUT = 120.0
#: Names that debugfs's own command line can hold; others are left out.
_PLAIN = re.compile(r"[^\x00-\x1f\"\\\x7f]+")
_TYPES = {
    "regular": 0o100000, "directory": 0o040000, "symlink": 0o120000, "FIFO": 0o010000,
    "socket": 0o140000, "character special": 0o020000, "block special": 0o060000,
}  # fmt: skip
_HEAD = re.compile(r"Inode: \d+ +Type: ([A-Za-z ]+?) +Mode: +(\d+) ")
_OWNER = re.compile(r"User: +(\d+) +Group: +(\d+)(?: +Project: +\d+)? +Size: (\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFile:
    """One file as it is in the base image."""

    #: File type and permission bits, as in stat.
    mode: int
    uid: int
    gid: int
    size: int


def look(image: Path, paths: Iterable[str]) -> dict[str, BaseFile]:
    """Return what paths below the root are in the image; those it has not are left out."""
    wanted = [path for path in paths if _PLAIN.fullmatch(path)]
    if not wanted:
        return {}
    commands = "".join(f'stat "/{path}"\n' for path in wanted)
    done = proc.run(
        ["debugfs", "-f", "-", image], input=commands.encode(), timeout=_TIMEOUT, ok=(0, 1)
    )
    return parse(done.stdout.decode(errors="replace"))


def parse(told: str) -> dict[str, BaseFile]:
    """Read what debugfs says: it repeats each command behind `debugfs: `, then answers."""
    found: dict[str, BaseFile] = {}
    for answer in re.split(r"^debugfs: +(?=stat )", told, flags=re.M)[1:]:
        command, _, facts = answer.partition("\n")
        head, owner = _HEAD.search(facts), _OWNER.search(facts)
        if head is None or owner is None or head[1] not in _TYPES:
            continue
        path = command.removeprefix('stat "/').rstrip().removesuffix('"')
        found[path] = BaseFile(
            mode=_TYPES[head[1]] | int(head[2], 8),
            uid=int(owner[1]),
            gid=int(owner[2]),
            size=int(owner[3]),
        )
    return found
