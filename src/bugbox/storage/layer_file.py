# SPDX-License-Identifier: Apache-2.0
"""`puzzle.tar.zst`: a layer as one file that says what it is.

The file begins with a skippable zstd frame that holds one JSON document, the *head*; behind it is
the packed tar. `zstd -d` and `tar --zstd` pass over the head, so the file is what its name says.
Nothing in a file is believed before `verify` has read all of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from bugbox.errors import CommandFailed
from bugbox.host import proc
from bugbox.storage.archive import USUAL, ArchiveError, Entry, Limits, scan

__all__ = ["FORMAT", "Head", "opened", "read_head", "verify", "write"]

FORMAT = "bugbox layer 1"
#: First of the sixteen magic numbers that zstd sets aside for others (RFC 8878, 3.1.2).
_MAGIC = 0x184D2A50
_HEAD_BYTES = 64 << 10
_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a layer is, as its maker says."""

    puzzle: str
    version: str
    #: SHA-256 of all that reached the build machine; empty for a layer of another origin.
    inputs: str
    base: str
    base_digest: str
    #: Size of the puzzle's disk.
    disk_bytes: int
    #: SHA-256, size and number of members of the tar, unpacked.
    tar_sha256: str
    tar_bytes: int
    members: int


def write(tar: Path, out: Path, head: Head) -> None:
    """Pack a tar behind its head."""
    text = json.dumps({"format": FORMAT, **asdict(head)}, sort_keys=True).encode()
    packed = out.with_name(f"{out.name}.packed")
    try:
        proc.run(["zstd", "-q", "-9", "-T0", tar, "-o", packed], timeout=_TIMEOUT)
        with out.open("wb") as file, packed.open("rb") as body:
            file.write(struct.pack("<II", _MAGIC, len(text)) + text)
            while data := body.read(1 << 20):
                file.write(data)
    finally:
        packed.unlink(missing_ok=True)


def read_head(path: Path) -> Head:
    """Read what a layer says it is; ArchiveError when it says nothing that we understand."""
    with path.open("rb") as file:
        start = file.read(8)
        magic, size = struct.unpack("<II", start) if len(start) == 8 else (0, 0)
        if magic != _MAGIC or size > _HEAD_BYTES:
            raise ArchiveError(
                f"{path}: not a layer that bugbox made", hint="bugbox build NAME -o FILE makes one"
            )
        text = file.read(size)
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        return _head(values)
    except (ValueError, TypeError, KeyError) as error:
        raise ArchiveError(f"{path}: its head cannot be read: {error}") from error


def _head(values: dict[str, Any]) -> Head:
    for name, kind in Head.__annotations__.items():
        if type(values.get(name)).__name__ != kind:
            raise ValueError(f"{name} is missing, or not of type {kind}")
    return Head(**values)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Unpack a layer's tar as a stream, to be read to its end; ArchiveError when it is damaged."""
    with path.open("rb") as source:
        try:
            # A window of 128 MiB is zstd's own limit, said here so that no setting raises it.
            argv = ["zstd", "-q", "-d", "-c", "--memory=128MB"]
            with proc.reading(argv, source=source, timeout=_TIMEOUT) as tar:
                yield cast(BinaryIO, tar)
        except CommandFailed as error:
            raise ArchiveError(f"{path}: damaged or cut short", detail=error.stderr) from error


def verify(path: Path, limits: Limits = USUAL) -> tuple[Head, list[Entry]]:
    """Read a whole layer: every rule of `archive` holds, and the head tells the truth."""
    head = read_head(path)
    with opened(path) as tar:
        counted = _Counted(tar)
        try:
            entries = list(scan(cast(BinaryIO, counted), limits))
        except ArchiveError as error:
            raise ArchiveError(f"{path}: {error.message}") from error
    if counted.sha256.hexdigest() != head.tar_sha256:
        raise ArchiveError(
            f"{path}: the tar's digest is {counted.sha256.hexdigest()[:12]}…, "
            f"and its head says {head.tar_sha256[:12]}…: damaged, or changed after it was made"
        )
    if (counted.size, len(entries)) != (head.tar_bytes, head.members):
        raise ArchiveError(f"{path}: its head is wrong about its size")
    return head, entries


class _Counted:
    """Hashes and counts what is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self.source = source
        self.sha256 = hashlib.sha256()
        self.size = 0

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.sha256.update(data)
        self.size += len(data)
        return data
