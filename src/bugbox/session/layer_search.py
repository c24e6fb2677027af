# SPDX-License-Identifier: Apache-2.0
"""Look into a built layer for what a learner must not find there."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from bugbox.puzzle.leak import Leak, Secrets, find
from bugbox.storage.archive import members
from bugbox.storage.layer_file import opened

__all__ = ["leaks"]

#: The first few are enough.
_MOST = 5


def leaks(layer: Path, hidden: Secrets) -> list[Leak]:
    """Return the first leaks of a layer's file; ArchiveError when it cannot be read."""
    with opened(layer) as tar:
        files = ((entry.name, pieces) for entry, pieces in members(tar))
        found = [*islice(find(hidden, files), _MOST)]
        while tar.read(1 << 20):
            pass
    return found
