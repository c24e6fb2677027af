# SPDX-License-Identifier: Apache-2.0
"""What was solved so far, from progress.jsonl."""

from __future__ import annotations

import json

from bugbox.paths import Home

__all__ = ["solved_puzzles"]


def solved_puzzles(home: Home) -> frozenset[str]:
    """Return the names of the puzzles that were solved without giving up first.

    A damaged line is passed over.
    """
    try:
        text = home.progress.read_text(errors="replace")
    except FileNotFoundError:
        return frozenset()
    found = set()
    for line in text.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if not isinstance(told, dict) or told.get("gave_up"):
            continue
        if told.get("event") == "solved":
            found.add(str(told.get("puzzle")))
    return frozenset(found)
