# SPDX-License-Identifier: Apache-2.0
"""Disk images: a qcow2 that holds only what differs from the image under it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Literal

from bugbox.errors import HostError
from bugbox.host import proc
from bugbox.storage.file import require_free

__all__ = [
    "Format",
    "check_free",
    "create_empty",
    "create_over_running",
    "create_overlay",
    "name_backing",
    "virtual_size",
]

Format = Literal["raw", "qcow2"]

#: What a session's disk takes at its start, and some room to work.
_ROOM = 64 << 20
#: A qcow2's magic number and the size of the disk in it.
_HEADER = struct.Struct(">4s20xQ")


def create_overlay(
    path: Path, *, backing: Path, backing_format: Format, size_bytes: int = 0
) -> None:
    """Make an empty qcow2 over `backing`, as large as it, or as `size_bytes` when that is more.

    The header names the backing file for people and tools; a driver never reads it from there.
    """
    if path.exists():
        raise HostError(f"{path} is there already")
    size = max(size_bytes, virtual_size(backing, backing_format))
    _create(path, size, "-b", str(backing.resolve()), "-F", backing_format)


def create_over_running(path: Path, *, backing: Path, backing_format: Format) -> None:
    """Make an empty qcow2 over an image that a machine may be writing to: it is not opened."""
    if path.exists():
        raise HostError(f"{path} is there already")
    size = backing.stat().st_size if backing_format == "raw" else _size_in_header(backing)
    _create(path, size, "-u", "-b", str(backing.resolve()), "-F", backing_format)


def name_backing(path: Path, backing: Path, backing_format: Format) -> None:
    """Write into a qcow2's header what it lies over, without looking whether that is there."""
    proc.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", backing_format, path],
        timeout=60,
    )


def create_empty(path: Path, *, size_bytes: int) -> None:
    """Make a qcow2 of zeros that takes next to nothing on the disk."""
    if path.exists():
        raise HostError(f"{path} is there already")
    _create(path, size_bytes)


def _create(path: Path, size: int, *backing: str) -> None:
    rounded = -(-size // 4096) * 4096
    try:
        proc.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *backing, path, str(rounded)], timeout=60
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def virtual_size(path: Path, format: Format = "qcow2") -> int:
    """Return how large the disk is that the guest sees."""
    if format == "raw":
        return path.stat().st_size
    # --force-share: a running machine holds the lock, and the size does not change under it.
    done = proc.run(
        ["qemu-img", "info", "--force-share", "--output=json", "-f", format, path], timeout=60
    )
    return int(json.loads(done.stdout)["virtual-size"])


def _size_in_header(path: Path) -> int:
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
    if len(header) == _HEADER.size:
        magic, size = _HEADER.unpack(header)
        if magic == b"QFI\xfb":
            return int(size)
    raise HostError(f"{path} is not a qcow2")


def check_free(path: Path, size_bytes: int = _ROOM) -> None:
    """Raise OutOfResources when the disk that holds `path` has less than `size_bytes` free."""
    folder = path if path.is_dir() else path.parent
    require_free(folder, size_bytes, "a machine's disk")
