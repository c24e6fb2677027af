# SPDX-License-Identifier: Apache-2.0
"""bugbox resume: on with a machine that is off, paused, saved or stalled."""

from __future__ import annotations

from bugbox.cli.ask import ask
from bugbox.cli.out import document, say

__all__ = ["resume"]


def resume(id: str | None = None, /, *, cold: bool = False, json: bool = False) -> int:
    """Let a machine run on, or boot it again on the same disk.

    Args:
        id: Which session. Without it, the only one there is.
        cold: Boot it in any case: what was in a paused or saved machine's memory is gone.
        json: Print one JSON document.
    """
    answer = ask("resume", {"id": id, "cold": cold})
    if json:
        document(answer)
    else:
        say(f"{answer['id']} is {answer['state']}")
    return 0
