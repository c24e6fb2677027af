# SPDX-License-Identifier: Apache-2.0
"""bugbox ps: which sessions there are. Thin."""

from __future__ import annotations

import time
from typing import Any

from bugbox.cli.ask import ask, idle
from bugbox.cli.out import complain, document, duration, table
from bugbox.paths import Home

__all__ = ["ps"]

_COLUMNS = ("id", "puzzle", "state", "started", "driver", "disk", "memory_mib")


def ps(*, json: bool = False) -> int:
    """Show the sessions.

    Args:
        json: Print one JSON document.
    """
    rows: list[dict[str, Any]] = [] if idle(Home()) else ask("ps")
    if json:
        document([{column: row.get(column) for column in _COLUMNS} for row in rows])
    elif rows:
        table(
            ["ID", "PUZZLE", "STATE", "UP", "DRIVER", "DISK", "MEMORY"], [_cells(r) for r in rows]
        )
    else:
        complain("no sessions")
    return 0


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["id"]),
        str(row.get("puzzle") or "-"),
        str(row["state"]),
        _age(row.get("started")),
        str(row.get("driver") or "-"),
        str(row.get("disk") or "-"),
        f"{row['memory_mib']} MiB" if row.get("memory_mib") else "-",
    ]


def _age(started: Any) -> str:
    from calendar import timegm  # with datetime and locale: only for a table with rows

    try:
        begun = timegm(time.strptime(str(started), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return str(started or "-")
    return duration(max(0, round(time.time() - begun)))
