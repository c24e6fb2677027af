# SPDX-License-Identifier: Apache-2.0
"""What a session's machine and its keeper wrote down: the ends of capped files."""

from __future__ import annotations

from pathlib import Path

from bugbox.errors import UserError
from bugbox.paths import Home, SessionPaths

__all__ = ["WHICH", "console_tail", "file_of", "tail"]

#: What `bugbox logs` can show.
WHICH = ("console", "boot", "vmm", "keeper")
_TAIL_BYTES = 1 << 19
#: What a healthy kernel says of a machine like ours, which has no PCI: no evidence of anything.
_HARMLESS = ("PCI: Fatal: No config space access function found",)


def file_of(home: Home, paths: SessionPaths, which: str) -> Path:
    """Return the file that holds a log; UserError for an unknown one."""
    files = {
        "console": paths.console,
        "boot": paths.boot_events,
        "vmm": paths.vmm_log,
        "keeper": home.keeper_log,
    }
    if which not in files:
        raise UserError(f"there is no log named {which}", hint=f"one of {', '.join(WHICH)}")
    return files[which]


def tail(path: Path, limit: int = _TAIL_BYTES) -> bytes:
    """Return the end of a log that is kept in two parts, the older one named `.1`."""
    found = b""
    for part in (path.with_name(path.name + ".1"), path):
        try:
            with part.open("rb") as file:
                file.seek(max(0, part.stat().st_size - limit))
                found += file.read(limit)
        except FileNotFoundError:
            continue
    return found[-limit:]


def console_tail(paths: SessionPaths, lines: int = 20) -> list[str]:
    """Return the last lines of the serial console, as it sent them."""
    text = tail(paths.console, 1 << 14).decode(errors="replace")
    said = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
    return [line for line in said if not any(words in line for words in _HARMLESS)][-lines:]
