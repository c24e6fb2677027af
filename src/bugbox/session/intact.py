# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a checkpoint hold what they held when it was made. Blocking.

Its memory and the session's own images below are read whole, when it is made and before it is gone
back to: a machine that wakes up with a changed byte in its memory is worse than none. The base and
the layer are the store's, which has digests of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import StateError

__all__ = ["Digest", "digests", "opened"]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What a file held: its length in bytes, and its SHA-256 in hex."""

    size: int
    sha256: str

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Digest:
        """Read what `as_json` wrote; KeyError, TypeError, ValueError."""
        return cls(size=int(raw["size"]), sha256=str(raw["sha256"]))

    def as_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return {"size": self.size, "sha256": self.sha256}


def digests(files: Mapping[str, Path]) -> dict[str, Digest]:
    """Read files to their ends; their digests by the names given."""
    found = {}
    for name, path in files.items():
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found[name] = _digest(fd)
        finally:
            os.close(fd)
    return found


@contextlib.contextmanager
def opened(files: Mapping[str, Path], wanted: Mapping[str, Digest]) -> Iterator[dict[str, int]]:
    """Open files that hold what they held; StateError says which one does not, and how.

    Their descriptors by name: whoever reads those reads what was looked at.
    """
    with contextlib.ExitStack() as stack:
        found = {}
        for name, path in files.items():
            found[name] = fd = _open(path)
            stack.callback(os.close, fd)
            size, digest = os.fstat(fd).st_size, wanted.get(name)
            if digest is None:
                raise StateError(f"nobody wrote down what {path} held")
            if size != digest.size:
                raise StateError(f"{path} has {size} bytes, and had {digest.size}")
            if _digest(fd) != digest:
                raise StateError(f"{path} does not hold what it held")
        yield found


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StateError(f"{path} is gone") from None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error


def _digest(fd: int) -> Digest:
    hasher, offset = hashlib.sha256(), 0
    while data := os.pread(fd, _CHUNK, offset):
        hasher.update(data)
        offset += len(data)
    return Digest(size=offset, sha256=hasher.hexdigest())
