# SPDX-License-Identifier: Apache-2.0
"""A session's own images: one on top that its machine writes to, those below never change again.

A copy of a running machine puts an empty image on top of each drive (`root.n3.qcow2`) and keeps
what is below. Another session that needs an image below has a hard link of its own to it, so each
folder is whole by itself, and whoever removes one asks nobody. An image that nobody else needs may
take up what lies above it: the chain stays short.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from bugbox.errors import StateError
from bugbox.machine.spec import Drive, MachineSpec
from bugbox.storage.disk import check_free, create_over_running

__all__ = [
    "DEPTH",
    "images",
    "link",
    "linked",
    "make_overlays",
    "mergeable",
    "merged",
    "new_overlays",
    "numbered",
    "own_images",
    "require_shallow",
    "still",
    "sweep",
    "switched",
]

#: Images of a session's own that may lie on one another; each costs a look at every read.
DEPTH = 16
_NUMBERED = re.compile(r"[A-Za-z0-9-]+\.n([0-9]+)\.qcow2")


def images(drive: Drive) -> Iterator[Drive]:
    """Yield an image and all that it lies over, the topmost first."""
    part: Drive | None = drive
    while part is not None:
        yield part
        part = part.backing


def own_images(spec: MachineSpec, drive: Drive) -> list[Path]:
    """Return those images of a drive that lie in the session's folder, the topmost first."""
    return [part.path for part in images(drive) if part.path.parent == spec.root]


def still(spec: MachineSpec) -> tuple[Drive, ...]:
    """Return the drives as a copy reads them: never written to again."""
    return tuple(dataclasses.replace(drive, read_only=True) for drive in spec.drives)


def new_overlays(spec: MachineSpec) -> dict[str, Path]:
    """Name a new image for each drive that the machine writes to."""
    named = [part.path for drive in spec.drives for part in images(drive)]
    used = [int(found[1]) for path in (*named, *spec.root.iterdir()) if (found := numbered(path))]
    number = max(used, default=0) + 1
    return {
        drive.id: spec.root / f"{drive.id}.n{number}.qcow2"
        for drive in spec.drives
        if not drive.read_only
    }


def switched(spec: MachineSpec, overlays: Mapping[str, Path]) -> MachineSpec:
    """Return the machine with these images on top of what its drives have now."""
    drives = []
    for drive, below in zip(spec.drives, still(spec), strict=True):
        path = overlays.get(drive.id)
        top = Drive(id=drive.id, path=path, format="qcow2", backing=below) if path else drive
        drives.append(top)
    return dataclasses.replace(spec, drives=tuple(drives))


def make_overlays(spec: MachineSpec) -> None:
    """Write the empty images that are on top of a machine that is to be."""
    check_free(spec.root)
    for drive in spec.drives:
        if not drive.read_only and drive.backing is not None:
            below = drive.backing
            create_over_running(drive.path, backing=below.path, backing_format=below.format)


def linked(drives: Iterable[Drive], home: Path, root: Path) -> tuple[Drive, ...]:
    """Return drives of another session (in `home`) as they are once `link` has linked them."""

    def moved(part: Drive) -> Drive:
        below = moved(part.backing) if part.backing else None
        path = part.path
        if path.parent == home:
            path = root / path.name
        return dataclasses.replace(part, path=path, backing=below)

    return tuple(moved(drive) for drive in drives)


def link(drives: Iterable[Drive], home: Path, root: Path) -> None:
    """Give the session in `root` links of its own to the images of these drives in `home`."""
    for drive in drives:
        for part in images(drive):
            if part.path.parent == home:
                os.link(part.path, root / part.path.name)


def require_shallow(spec: MachineSpec) -> None:
    """Raise StateError when a drive has so many images that one more is too many."""
    deepest = max((len(own_images(spec, drive)) for drive in spec.drives), default=0)
    if deepest >= DEPTH:
        raise StateError(
            f"{spec.id}: its disk has been copied {deepest - 1} times, and each copy is in use",
            hint=f"stop some of its forks, or bugbox reset {spec.id}",
        )


def mergeable(spec: MachineSpec, drive: Drive, pinned: Collection[Path]) -> list[Path]:
    """Return images right below the topmost that nobody else needs, when they can become one."""

    def free(path: Path) -> bool:
        return path not in pinned and path.stat().st_nlink == 1

    below = own_images(spec, drive)[1:]
    run = [*itertools.takewhile(free, below)]
    return run if len(run) > 1 else []


def merged(spec: MachineSpec, images: list[Path]) -> MachineSpec:
    """Return the machine without the images that were merged into the last of `images`."""
    gone = {*images[:-1]}

    def without(part: Drive | None) -> Drive | None:
        if part is None:
            return None
        below = without(part.backing)
        return below if part.path in gone else dataclasses.replace(part, backing=below)

    drives = tuple(drive for each in spec.drives if (drive := without(each)) is not None)
    return dataclasses.replace(spec, drives=drives)


def sweep(spec: MachineSpec, pinned: Collection[Path]) -> None:
    """Remove images that neither the machine nor what is `pinned` needs."""
    used = {*pinned, *(part.path for drive in spec.drives for part in images(drive))}
    for path in [*spec.root.iterdir()]:
        if path not in used and (numbered(path) or path.name == "disk.qcow2"):
            path.unlink(missing_ok=True)


def numbered(path: Path) -> re.Match[str] | None:
    """Match the name of an image that was put on top of another."""
    return _NUMBERED.fullmatch(path.name)
