# SPDX-License-Identifier: Apache-2.0
"""bugbox undo: back to a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import agreed, document, say

__all__ = ["undo", "undo_line"]


def undo(
    id: str | None = None,
    label: str | None = None,
    /,
    *,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Go back to a checkpoint, memory and disk: what was done since is gone. It stays kept.

    On a terminal it asks first.

    Args:
        id: Which session. Without it, the only one there is.
        label: Which checkpoint. Without it, the newest.
        yes: Do not ask.
        json: Print one JSON document.
    """
    if not yes and sys.stdin.isatty():
        found = ask("checkpoint", {"id": id, "list": True})
        id = str(found["id"])
        newest = next((each["label"] for each in found["checkpoints"]), None)
        label = label if label is not None else newest
        if label is not None and not agreed(
            f"undo {id} {label}: all that was done in this machine since is thrown away."
        ):
            return 1
    answer = ask("undo", {"id": id, "label": label})
    if json:
        document(answer)
    else:
        say(undo_line(answer))
    return 0


def undo_line(answer: Mapping[str, Any]) -> str:
    """Say for people what `undo` did."""
    return f"{answer['id']} is {answer['state']}, as it was at checkpoint {answer['label']}"
