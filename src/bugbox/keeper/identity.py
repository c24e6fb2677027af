# SPDX-License-Identifier: Apache-2.0
"""Whether a keeper is the one we would start now: its program, and the settings it was given.

The keeper notes both when it starts; a client computes them anew for each request. So a keeper
whose source was edited, or whose settings are not the command's, is replaced.
Standard library only: the thin clients use it. Takes less than a millisecond.
"""

from __future__ import annotations

import os
from zlib import crc32

from bugbox import __version__
from bugbox.paths import DATA, Home

__all__ = ["code_version", "settings_digest"]

#: Variables of ours that commands honour themselves: the keeper's may differ.
_CLIENTS_OWN = frozenset(
    f"BUGBOX_{name}"
    for name in ("HOME", "ESCAPE", "PUZZLES", "DEBIAN_MIRROR", "GUEST_BIN", "KEEPER_IDLE")
)


def code_version() -> str:
    """Return the version and a fingerprint of the program's files as they are on the disk now."""
    seen: list[tuple[str, int, int]] = []
    folders = [str(DATA)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    seen.append((entry.name, status.st_mtime_ns, status.st_size))
                elif "." not in entry.name and entry.name[0] != "_" and entry.is_dir():
                    folders.append(entry.path)
    return f"{__version__}+{crc32(repr(sorted(seen)).encode()):08x}"


def settings_digest(home: Home) -> str:
    """Return a digest of all that a keeper started here and now would read its settings from."""
    try:
        status = os.stat(home.settings)  # noqa: PTH116 (cheaper, and this is the thin path)
        file = (status.st_mtime_ns, status.st_size)
    except OSError:
        file = (0, 0)
    ours = [
        (name, value)
        for name, value in os.environ.items()
        if name.startswith("BUGBOX_") and name not in _CLIENTS_OWN and value
    ]
    return f"{crc32(repr((file, sorted(ours))).encode()):08x}"
