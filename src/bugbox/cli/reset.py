# SPDX-License-Identifier: Apache-2.0
"""bugbox reset: the same session, as broken as at its start."""

from __future__ import annotations

from bugbox.cli.ask import ask
from bugbox.cli.out import document, duration, say

__all__ = ["reset"]


def reset(id: str | None = None, /, *, json: bool = False) -> int:
    """Throw a session's changes away and boot it afresh, under the same name.

    Args:
        id: Which session. Without it, the only one there is.
        json: Print one JSON document.
    """
    answer = ask("reset", {"id": id})
    if json:
        document(answer)
    else:
        seconds = float(answer.get("timings_ms", {}).get("total", 0)) / 1000
        say(f"{answer['id']} is {answer['state']} after {duration(seconds)}")
    return 0
