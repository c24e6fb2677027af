# SPDX-License-Identifier: Apache-2.0
"""The user that a session's VMM runs as, and the folder for its sockets, which stays ours."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from bugbox.config import Settings
from bugbox.paths import Home
from bugbox.session.record import load_all

__all__ = ["make_socket_folder", "own_uid"]

_UIDS = 0x10000


def own_uid(home: Home, settings: Settings, id: str) -> int | None:
    """Pick a user for the VMM that no other session's VMM has; None: we are not root."""
    if os.geteuid() != 0 or settings.uid_base == 0:
        return None
    taken = {record.spec.get("uid") for record in load_all(home)}
    start = zlib.crc32(id.encode()) % _UIDS
    free = (settings.uid_base + (start + n) % _UIDS for n in range(_UIDS))
    return next(uid for uid in free if uid not in taken)


def make_socket_folder(folder: Path) -> None:
    """Make the folder of the sockets that the VMM inherits, listening; only we may look in."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
