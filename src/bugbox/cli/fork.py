# SPDX-License-Identifier: Apache-2.0
"""bugbox fork: a second machine that goes on where a running one is."""

from __future__ import annotations

from bugbox.cli.ask import ask
from bugbox.cli.out import document, duration, say

__all__ = ["fork"]


def fork(id: str | None = None, /, *, json: bool = False) -> int:
    """Make another session of a running one, as it is at this moment; both go on.

    The new one has a name, keys and random numbers of its own. The running one stands still for
    a moment, which is told.

    Args:
        id: Which session. Without it, the only one there is.
        json: Print one JSON document.
    """
    answer = ask("fork", {"id": id})
    if json:
        document(answer)
    else:
        seconds = float(answer["timings_ms"]["total"]) / 1000
        say(f"{answer['id']} is {answer['state']} after {duration(seconds)}")
        say(f"{answer['of']} stood still for {round(answer['pause_ms'])} ms and runs on")
    return 0
