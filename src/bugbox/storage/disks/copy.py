# SPDX-License-Identifier: Apache-2.0
"""A raw file of its own: a reflink where the filesystem has it (XFS, btrfs), else a sparse copy.

With reflinks it shares every block with the base and the layer, and costs nothing until it is
written.
Without, each session costs what the base has on the disk, and the time to copy that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from bugbox.storage.disk import check_free, virtual_size
from bugbox.storage.disks.layout import Layout, Part, Place, Source
from bugbox.storage.extents import runs_of
from bugbox.storage.file import allocated

__all__ = ["Copy", "reflinks"]

_NAME = "disk.raw"
# From linux/fs.h.
_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_PIECE = 1 << 20
_RANGE = struct.Struct("<q3Q")
#: "This filesystem cannot", "they lie on two", "not in blocks of it".
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})


class Copy:
    """A whole file."""

    name = "copy"
    raw = True

    def require(self, folder: Path) -> None:
        """Works everywhere."""

    def layout(self, source: Source, place: Place) -> Layout:
        """One raw file."""
        return Layout(parts=(Part(id="root", path=place.folder / _NAME, format="raw"),))

    def make(self, source: Source, place: Place) -> None:
        """Clone or copy the base, lay the layer's runs over it, make it as large as it is to be."""
        path = place.folder / _NAME
        path.unlink(missing_ok=True)
        runs = runs_of(source.layer) if source.layer else None
        if not reflinks(source.base, place.folder):
            needed = allocated(source.base) + (allocated(runs.raw) if runs else 0)
            check_free(place.folder, needed + (64 << 20))
        size = max(source.size_bytes, source.base.stat().st_size)
        if source.layer:
            size = max(size, virtual_size(source.layer))
        with path.open("xb") as target, source.base.open("rb") as base:
            os.fchmod(target.fileno(), 0o600)
            _lay(base.fileno(), target.fileno(), [(0, os.fstat(base.fileno()).st_size)])
            if runs:
                with runs.raw.open("rb") as layer:
                    _lay(layer.fileno(), target.fileno(), runs.runs, over=True)
            target.truncate(-(-size // 4096) * 4096)

    def bring_back(self, place: Place) -> None:
        """It is all in the file."""

    def give_back(self, place: Place) -> None:
        """It is all in the folder."""


def reflinks(file: Path, folder: Path) -> bool:
    """Whether a copy of `file` in `folder` can share its blocks."""
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        with file.open("rb") as source:
            fcntl.ioctl(fd, _FICLONE, source.fileno())
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    finally:
        os.close(fd)
    return True


def _lay(source: int, target: int, runs: Iterable[tuple[int, int]], *, over: bool = False) -> None:
    """Bring runs of bytes of one file to the same place in another, sharing blocks if possible.

    `over`: something lies there already, so that holes must be written as zeros.
    """
    sharing = True
    for start, length in runs:
        if sharing:
            try:
                fcntl.ioctl(target, _FICLONERANGE, _RANGE.pack(source, start, length, start))
                continue
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                sharing = False
        for data, at, end in _pieces(source, start, start + length):
            if data:
                _copy(source, target, at, end)
            elif over:
                _zero(target, at, end)


def _pieces(fd: int, start: int, end: int) -> Iterator[tuple[bool, int, int]]:
    """Yield (is it data, start, end) for what lies between `start` and `end`."""
    at = start
    while at < end:
        try:
            data = min(os.lseek(fd, at, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data to the end of the file
                raise
            data = end
        if data > at:
            yield False, at, data
        if data == end:
            return
        at = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        yield True, data, at


def _copy(source: int, target: int, at: int, end: int) -> None:
    while at < end:
        try:
            at += os.copy_file_range(source, target, end - at, at, at)
        except OSError as error:  # on two filesystems that the kernel does not copy between
            if error.errno not in _CANNOT:
                raise
            at += os.pwrite(target, os.pread(source, min(end - at, _PIECE), at), at)


def _zero(target: int, at: int, end: int) -> None:
    zeros = bytes(_PIECE)
    while at < end:
        at += os.pwrite(target, zeros[: end - at], at)
