# SPDX-License-Identifier: Apache-2.0
"""bugbox new: the start of a puzzle that already works."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bugbox.cli.out import complain, document, say
from bugbox.paths import shipped_puzzles
from bugbox.puzzle.scaffold import create

__all__ = ["new"]


def new(
    name: str,
    /,
    *,
    template: Literal["permission", "disk", "service", "network"] = "permission",
    json: bool = False,
) -> int:
    """Make a folder with a small puzzle that builds, breaks and can be solved.

    Args:
        name: The puzzle's name, which is the folder's too.
        template: What kind of fault to start from.
        json: Print one JSON document.
    """
    folder = create(Path.cwd(), name, template)
    if json:
        document({"name": name, "folder": str(folder)})
    else:
        say(f"{folder} is there; next:")
        say(f"  cd {name}; bugbox test; bugbox play")
    if (shipped_puzzles() / name).is_dir():
        complain(
            f"the catalogue has a {name} too: that name means its puzzle, ./{name} means yours"
        )
    return 0
