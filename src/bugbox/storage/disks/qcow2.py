# SPDX-License-Identifier: Apache-2.0
"""base.ext4 under puzzle.qcow2 under disk.qcow2: QEMU reads through them. Needs no rights."""

from __future__ import annotations

from pathlib import Path

from bugbox.host import proc
from bugbox.storage.disk import check_free, create_overlay
from bugbox.storage.disks.layout import Layout, Part, Place, Source

__all__ = ["Qcow2"]

_NAME = "disk.qcow2"
#: What it needs at the very start; it grows as the guest writes.
_START_BYTES = 64 << 20


class Qcow2:
    """An image that holds only what differs from the one under it."""

    name = "qcow2"
    raw = False

    def require(self, folder: Path) -> None:
        """Need qemu-img."""
        proc.find("qemu-img")

    def layout(self, source: Source, place: Place) -> Layout:
        """One drive, over a chain of read-only ones."""
        below = Part(id="base", path=source.base, format="raw", read_only=True)
        if source.layer:
            below = Part(
                id="layer", path=source.layer, format="qcow2", read_only=True, backing=below
            )
        return Layout(
            parts=(Part(id="root", path=place.folder / _NAME, format="qcow2", backing=below),)
        )

    def make(self, source: Source, place: Place) -> None:
        """Write an empty qcow2."""
        path = place.folder / _NAME
        check_free(place.folder, _START_BYTES)
        path.unlink(missing_ok=True)
        create_overlay(
            path,
            backing=source.layer or source.base,
            backing_format="qcow2" if source.layer else "raw",
            size_bytes=source.size_bytes,
        )

    def bring_back(self, place: Place) -> None:
        """It is all in the file."""

    def give_back(self, place: Place) -> None:
        """It is all in the folder."""
