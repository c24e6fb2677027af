# SPDX-License-Identifier: Apache-2.0
"""bugbox pack: a puzzle as one file, for others to add."""

from __future__ import annotations

from pathlib import Path

from bugbox.cli import prepare
from bugbox.cli.out import document, printable, say
from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.session import packing

__all__ = ["pack"]


def pack(
    name: str | None = None,
    /,
    *,
    output: Path | None = None,
    for_learners: bool = False,
    json: bool = False,
) -> int:
    """Write a puzzle with its layer to one file; the layer is built first when it is missing.

    Args:
        name: A name of the catalogue or a folder. Without it, the folder you stand in.
        output: Where to; also -o. Without it, a file in this folder.
        for_learners: Leave solutions, wrong fixes and the walkthrough out.
        json: Print one JSON document.
    """
    home = Home()
    puzzle = find(name, roots(load(home).puzzles), Path.cwd())
    layer = prepare.ensure(str(puzzle.folder)).layer if puzzle.builds else None
    to = output or Path(f"{puzzle.name}.bugbox")
    digest = packing.pack(home, puzzle, layer, to, for_learners=for_learners)
    size = to.stat().st_size
    if json:
        document({"output": str(to), "sha256": digest, "size_bytes": size})
    else:
        say(f"{printable(str(to))}: {max(1, size >> 10)} KiB, sha256:{digest}")
        say(f"  bugbox add {printable(str(to))}")
    return 0
