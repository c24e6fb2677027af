# SPDX-License-Identifier: Apache-2.0
"""bugbox pause: a machine stands still until somebody uses it."""

from __future__ import annotations

from bugbox.cli.ask import ask
from bugbox.cli.out import document, say

__all__ = ["pause"]


def pause(id: str | None = None, /, *, save: bool = False, json: bool = False) -> int:
    """Let a machine stand still: it takes no CPU, and the next use lets it run on.

    A shell, a command, a check, a copy, a forwarded connection and a typed key are uses; so is
    `bugbox resume`. Its clock is right again then. A machine that nobody uses is paused by itself
    after a while (setting `idle_pause`), unless its puzzle says `session: {pausable: false}`.

    Args:
        id: Which session. Without it, the only one there is.
        save: Put its memory onto the disk too: it then takes none, and outlives a reboot of the
            host. The next use loads it.
        json: Print one JSON document.
    """
    answer = ask("pause", {"id": id, "save": save})
    if json:
        document(answer)
    else:
        say(f"{answer['id']} is {answer['state']}")
    return 0
