# SPDX-License-Identifier: Apache-2.0
"""Digests of files that are asked for again and again, by what stat tells of the files.

A tree whose names, inodes, sizes and times are those of last time has the digest of last time. One
that was changed a moment ago is not trusted so far: a file may change again within the same tick.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["Known"]

_SETTLED_NS = 2_000_000_000
_MOST = 64


class Known:
    """What was worked out last of some files; kept in this process."""

    def __init__(self) -> None:
        self._found: dict[object, str] = {}

    def of(self, paths: Iterable[Path], work_out: Callable[[], str], *also: str) -> str:
        """Return what `work_out` makes of `paths` (and of what `also` names)."""
        listed = list(paths)
        told = _stats(listed)
        key = (also, told)
        newest = max((each[-1] for each in told), default=0)
        found = self._found.get(key)
        if found is None:
            found = work_out()
            if time.time_ns() - newest > _SETTLED_NS and _stats(listed) == told:
                while len(self._found) >= _MOST:
                    self._found.pop(next(iter(self._found)))
                self._found[key] = found
        return found


def _stats(paths: list[Path]) -> tuple[tuple[str, int, int, int, int, int, int], ...]:
    told = []
    for path in paths:
        s = os.lstat(path)
        times = (s.st_mtime_ns, s.st_ctime_ns)
        told.append((str(path), s.st_mode, s.st_dev, s.st_ino, s.st_size, *times))
    return tuple(told)
