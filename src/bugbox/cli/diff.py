# SPDX-License-Identifier: Apache-2.0
"""bugbox diff: what a puzzle's layer changes on its base image, as an author thinks of it."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from typing import Any

from bugbox.cli import prepare
from bugbox.cli.ask import puzzle_ref
from bugbox.cli.out import document, printable, say
from bugbox.storage import layer_file
from bugbox.storage.archive import OPAQUE, Entry
from bugbox.storage.base_files import BaseFile, look

__all__ = ["changes", "diff"]


def diff(name: str | None = None, /, *, json: bool = False) -> int:
    """Show what a puzzle's layer changes: A added, M changed, D deleted; builds it first.

    Beside a changed file stands what of it is another than in the base image.

    Args:
        name: A name of the catalogue or a folder. Without it, the folder you stand in.
        json: Print one JSON document.
    """
    parts = prepare.ensure(puzzle_ref(name))
    assert parts.layer is not None
    _, entries = layer_file.verify(parts.layer.tar)
    paths = [entry.name for entry in entries if entry.name != "." and entry.hides is None]
    told = [*changes(entries, look(parts.image.rootfs, paths))]
    if json:
        document(told)
        return 0
    for change in told:
        notes = f"  ({', '.join(change['notes'])})" if change["notes"] else ""
        say(printable(f"{change['change']} {change['path']}{notes}", lines=False))
    return 0


def changes(entries: Sequence[Entry], base: dict[str, BaseFile]) -> Iterator[dict[str, Any]]:
    """Yield each change; a folder that only holds changes, and is as it was, is none."""
    for entry in entries:
        if entry.hides is not None:
            what = ["all that was in it"] if entry.name.endswith(OPAQUE) else []
            yield {"change": "D", "path": f"/{entry.hides}", "notes": what}
        elif entry.name != ".":
            before = base.get(entry.name)
            notes = _notes(entry, before)
            if before is None or notes or not stat.S_ISDIR(entry.mode):
                letter = "A" if before is None else "M"
                yield {"change": letter, "path": f"/{entry.name}", "notes": notes}


def _notes(entry: Entry, before: BaseFile | None) -> list[str]:
    """Say what an author may not have meant: owner, mode, type, what ls does not show."""
    notes = []
    mode, owner = stat.filemode(entry.mode), f"{entry.uid}:{entry.gid}"
    if before is None:
        notes += [f"{mode} {owner}"]
    else:
        if entry.mode != before.mode:
            notes.append(f"{stat.filemode(before.mode)} → {mode}")
        if (entry.uid, entry.gid) != (before.uid, before.gid):
            notes.append(f"{before.uid}:{before.gid} → {owner}")
        if stat.S_ISREG(entry.mode) and entry.size != before.size and not entry.link_to:
            notes.append(f"{before.size} → {entry.size} bytes")
    if entry.target:
        notes.append(f"leads to {entry.target}")
    if entry.link_to:
        notes.append(f"another name of /{entry.link_to}")
    notes += [f"{kind} access list" for kind in sorted(entry.acls)]
    notes += sorted(entry.xattrs)
    return notes
