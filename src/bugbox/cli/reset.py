# SPDX-License-Identifier: Apache-2.0
"""bugbox reset: the same session, as broken as at its start."""

from __future__ import annotations

from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import document, duration, say
from bugbox.errors import NotBuilt

__all__ = ["afresh", "reset"]


def reset(id: str | None = None, /, *, json: bool = False) -> int:
    """Throw a session's changes away and boot it afresh, under the same name.

    Args:
        id: Which session. Without it, the only one there is.
        json: Print one JSON document.
    """
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

        story = ask("story", {"id": id})
        prepare.ensure(str(story["folder"]))
        answer = ask("reset", {"id": story["id"]})
    return answer
