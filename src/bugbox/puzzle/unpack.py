# SPDX-License-Identifier: Apache-2.0
"""Bring a finished layer onto a puzzle's disk, in a build machine: nothing of it is run.

The other way to a disk is `build`, which makes the layer there. Both end with the same disk.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from bugbox.puzzle.build import BuildGuest, begin, bring, step
from bugbox.storage.archive import Entry

__all__ = ["lists", "unpack"]


def lists(entries: Sequence[Entry]) -> dict[str, bytes]:
    """Return what unpack.sh must know of a tar beforehand: three lists of names, ended by NULs."""
    hidden = [entry.hides for entry in entries]
    shown = [entry for entry in entries if entry.hides is None and entry.name != "."]
    folders = {entry.name for entry in shown if stat.S_ISDIR(entry.mode)}
    # Of a directory that hides all it had, nothing needs to stay but what the tar brings.
    return {
        "deletions": _named(name for name in hidden if name is not None),
        "folders": _named(sorted(folders)),
        "others": _named(entry.name for entry in shown if entry.name not in folders),
    }


def _named(names: Iterable[str]) -> bytes:
    return b"".join(f"./{name}".encode("utf-8", "surrogateescape") + b"\0" for name in names)


async def unpack(
    guest: BuildGuest, tar: Path, entries: Sequence[Entry], *, factor: float = 1.0
) -> None:
    """Unpack `tar`, whose members are `entries`, onto the puzzle's disk; BuildFailed."""
    await begin(guest, ("prepare.sh", "unpack.sh"), factor)
    await bring(guest, "layer.tar", tar)
    for name, data in lists(entries).items():
        await bring(guest, name, data)
    await step(guest, "unpack.sh", [], factor)
