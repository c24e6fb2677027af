# SPDX-License-Identifier: Apache-2.0
"""A packed puzzle where a command wants a puzzle's name: it is added first, and that is said."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["is_packed", "taken_in"]


def is_packed(name: str | None) -> bool:
    """Whether a word is a file that a pack may be. Quick, and loads nothing."""
    return name is not None and os.path.basename(name) != "puzzle.yaml" and os.path.isfile(name)  # noqa: PTH113, PTH119


def taken_in(name: str) -> str:
    """Return the folder of the puzzle in a packed file, which is added; NotFound: no pack."""
    from bugbox.cli.out import complain, printable  # all of it is loaded only for a file
    from bugbox.errors import NotFound
    from bugbox.paths import Home
    from bugbox.session import packing
    from bugbox.storage.archive import ArchiveError
    from bugbox.storage.pack_file import PACK, read_about

    try:
        read_about(Path(name), PACK)
    except ArchiveError as error:
        raise NotFound(f"{name} is a file, and no packed puzzle", detail=error.message) from error
    added = packing.add(Home(), Path(name))
    if added.new:
        authors = ", ".join(author.name for author in added.puzzle.manifest.authors) or "not named"
        complain(
            f"{added.puzzle.name} is added: author {printable(authors)}, licence "
            f"{printable(added.puzzle.manifest.license or 'not named')}, sha256:{added.sha256[:12]}"
        )
    return str(added.puzzle.folder)
