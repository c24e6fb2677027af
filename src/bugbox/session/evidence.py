# SPDX-License-Identifier: Apache-2.0
"""What to look at when a machine does not do what it should: logs, and all of its particulars."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from bugbox.host.proc import start_time
from bugbox.paths import Home
from bugbox.session.logs import console_tail, file_of, tail
from bugbox.session.record import Record

__all__ = ["debug", "logs"]


def logs(home: Home, id: str, which: str) -> dict[str, Any]:
    """Return where a log lies and the end of it; bytes that are no text are escaped."""
    path = file_of(home, home.session(id), which)
    return {"path": str(path), "text": tail(path).decode(errors="backslashreplace")}


def debug(home: Home, record: Record) -> dict[str, Any]:
    """Return everything about a session that may explain it."""
    paths = home.session(record.id)
    try:
        argv = json.loads(paths.argv.read_text())
    except (FileNotFoundError, ValueError):
        argv = []
    return {
        "record": dataclasses.asdict(record),
        "argv": argv,
        "running": bool(record.process and record.process.alive),
        "started_ticks": start_time(record.pid) if record.pid else None,
        "folder": str(paths.root),
        "runtime": str(paths.runtime),
        "files": {
            entry.name: entry.stat().st_size for entry in paths.root.iterdir() if entry.is_file()
        },
        "console": console_tail(paths, 50),
        "vmm": tail(paths.vmm_log, 1 << 14).decode(errors="backslashreplace"),
    }
