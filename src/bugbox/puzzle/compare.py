# SPDX-License-Identifier: Apache-2.0
"""What a build changed, from two lists of a whole filesystem: before it and after it.

For builders that have no upper directory to look into. A file has changed when its inode is
another one or when its ctime is: no program can set that back, and every driver of a container
engine keeps it. From the two lists come the members of the layer's tar, in its order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bugbox.storage.archive import OPAQUE, WHITEOUT, ArchiveError

__all__ = ["Changes", "Listed", "compare", "parse"]

_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """One name of a list."""

    #: find's letter: f, d, l, p, s, c, b.
    kind: str
    inode: str
    ctime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What becomes the layer. Names are relative, `.` is the root."""

    #: All that the tar holds, whiteouts too, a folder before what is in it.
    members: tuple[str, ...]
    #: Those of them that must be made first: empty files.
    whiteouts: tuple[str, ...]
    #: What no tar can carry.
    sockets: tuple[str, ...]


def parse(said: bytes) -> dict[str, Listed]:
    """Read what find printed: `KIND INODE CTIME PATH`, each ended by a NUL."""
    found: dict[str, Listed] = {}
    for record in said.split(b"\0"):
        if not record:
            continue
        parts = record.decode("utf-8", "surrogateescape").split(" ", 3)
        if len(parts) != 4 or len(found) > _MOST:
            raise ArchiveError("the list of the container's files makes no sense")
        found[parts[3] or "."] = Listed(*parts[:3])
    return found


def compare(before: dict[str, Listed], after: dict[str, Listed], never: Collection[str]) -> Changes:
    """Return what `after` has that `before` had not, had otherwise, or had and lost."""
    reserved = next((name for name in after if name.rpartition("/")[2].startswith(WHITEOUT)), None)
    if reserved is not None:
        raise ArchiveError(f"build.sh made {reserved}: names that begin with .wh. mean deletions")
    patterns = [pattern.split("/") for pattern in never]
    changed = {
        name
        for name, now in after.items()
        if before.get(name) != now and not _matches(name, patterns)
    }
    sockets = {name for name in changed if after[name].kind == "s"}
    opaque = {
        name
        for name in changed
        if after[name].kind == "d" and name in before and before[name].kind == "d"
        if before[name].inode != after[name].inode
    }
    whiteouts = {f"{name}/{OPAQUE}" for name in opaque}
    for name in before.keys() - after.keys():
        if not _matches(name, patterns) and _is_told(name, before, after, opaque):
            folder, slash, last = name.rpartition("/")
            whiteouts.add(f"{folder}{slash}{WHITEOUT}{last}")
    names = (changed - sockets) | whiteouts | {"."}
    names |= {parent for name in names for parent in _parents(name)}
    return Changes(
        members=tuple(sorted(names, key=_order)),
        whiteouts=tuple(sorted(whiteouts)),
        sockets=tuple(sorted(sockets)),
    )


def _is_told(
    name: str, before: dict[str, Listed], after: dict[str, Listed], opaque: set[str]
) -> bool:
    """Whether a deleted name needs a whiteout of its own: nothing above it says so already."""
    parent = name.rpartition("/")[0] or "."
    if parent not in after or after[parent].kind != "d":
        return False
    return not any(above in opaque for above in _parents(name))


def _matches(name: str, patterns: list[list[str]]) -> bool:
    parts = name.split("/")
    return any(
        len(parts) >= len(pattern) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns
    )


def _parents(name: str) -> list[str]:
    """Return the folders above a name, the root last."""
    found = []
    while name != ".":
        name = name.rpartition("/")[0] or "."
        found.append(name)
    return found


def _order(name: str) -> list[bytes]:
    """Sort key: as tar walks a tree whose folders are sorted by name."""
    if name == ".":
        return []
    return [part.encode("utf-8", "surrogateescape") for part in name.split("/")]
