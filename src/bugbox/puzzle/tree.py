# SPDX-License-Identifier: Apache-2.0
"""Whether checks leave a machine's files as they were.

`guest/tree.sh` lists every file with what changes when the file does, contents included: no
program can set a file's time of change (ctime). Access times are not in the list, nor is what lies
in memory only.
"""

from __future__ import annotations

from collections.abc import Mapping

from bugbox.paths import DATA

__all__ = ["Tree", "changed", "own_doing", "parse", "script"]

#: By path: inode, mode, links, owner, size, times, as one text nobody needs to take apart.
Tree = Mapping[bytes, bytes]


def script() -> bytes:
    """Return the script that lists a machine's files."""
    return (DATA / "puzzle" / "guest" / "tree.sh").read_bytes()


def parse(listing: bytes) -> Tree:
    """Read what the script printed: `FACTS|PATH` a line."""
    tree = {}
    for line in listing.split(b"\n"):
        facts, bar, path = line.partition(b"|")
        if bar:
            tree[path] = facts
    return tree


def changed(before: Tree, after: Tree) -> set[bytes]:
    """Return the paths that are new, gone, or not what they were."""
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


def own_doing(suspects: set[bytes], meanwhile: set[bytes]) -> set[bytes]:
    """Return the suspects that the machine also changes while nobody checks anything.

    A file that comes or goes in a folder where files come and go anyway counts, too.
    """
    return {path for path in suspects if path in meanwhile or _folder(path) in meanwhile}


def _folder(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or b"/"
