# SPDX-License-Identifier: Apache-2.0
"""bugbox reset: the same session, as broken as at its start."""

from __future__ import annotations

import sys
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import agreed, document, duration, say
from bugbox.errors import NotBuilt

__all__ = ["afresh", "reset"]


def reset(id: str | None = None, /, *, yes: bool = False, json: bool = False) -> int:
    """Throw a session's changes and checkpoints away and boot it afresh, under the same name.

    On a terminal it asks first.

    Args:
        id: Which session. Without it, the only one there is.
        yes: Do not ask.
        json: Print one JSON document.
    """
    if not yes and sys.stdin.isatty():
        id = str(ask("debug", {"id": id})["record"]["id"])
        if not agreed(f"reset {id}: all that was done in this machine is thrown away."):
            return 1
    answer = afresh(id)
    if json:
        document(answer)
    else:
        seconds = float(answer.get("timings_ms", {}).get("total", 0)) / 1000
        say(f"{answer['id']} is {answer['state']} after {duration(seconds)}")
    return 0


def afresh(id: str | None) -> dict[str, Any]:
    """Reset a session; build what changed since it was started, in this process."""
    try:
        answer: dict[str, Any] = ask("reset", {"id": id})
    except NotBuilt:
        from bugbox.cli import prepare  # loads the large libraries

        record = ask("debug", {"id": id})["record"]
        if record["folder"]:
            prepare.ensure(str(record["folder"]))
        else:
            prepare.ensure(None, image=str(record["puzzle"]))
        answer = ask("reset", {"id": record["id"]})
    return answer
