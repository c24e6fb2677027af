# SPDX-License-Identifier: Apache-2.0
"""bugbox stop: end sessions and throw their machines away. Thin."""

from __future__ import annotations

import sys

from bugbox.cli.ask import ask, idle
from bugbox.cli.out import agreed, complain, document, say
from bugbox.errors import UserError
from bugbox.paths import Home

__all__ = ["stop"]


def stop(
    *ids: str, all: bool = False, yes: bool = False, no_keeper: bool = False, json: bool = False
) -> int:
    """End sessions: their machines and their disks are gone afterwards.

    Args:
        ids: Which sessions. Without one, the only one there is.
        all: All of them.
        yes: Do not ask. Without a terminal, several sessions are stopped with this only.
        no_keeper: Do it in this process, without the keeper.
        json: Print one JSON document.
    """
    if all and ids:
        raise UserError("sessions or --all, not both")
    if all and idle(Home()):
        return _told([], json)
    if all and not yes:
        running = [row["id"] for row in ask("ps", alone=no_keeper) if not row.get("making")]
        if len(running) > 1:
            listed = f"stop {len(running)} sessions: {', '.join(running)}"
            if not sys.stdin.isatty():
                raise UserError(f"nobody is there to ask whether to {listed}", hint="add --yes")
            if not agreed(f"{listed}\ntheir disks are thrown away."):
                return 1
    answer = ask("stop", {"all": True} if all else {"ids": list(ids)}, alone=no_keeper)
    return _told(answer["stopped"], json)


def _told(stopped: list[str], json: bool) -> int:
    if json:
        document({"stopped": stopped})
    else:
        for id in stopped:
            say(f"{id} stopped")
        if not stopped:
            complain("nothing runs")
    return 0
