# SPDX-License-Identifier: Apache-2.0
"""bugbox add: take a packed puzzle into the catalogue. Nothing of it runs on this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bugbox.cli.events import shown
from bugbox.cli.out import document, printable, say
from bugbox.errors import NotFound
from bugbox.image import store
from bugbox.paths import Home
from bugbox.session import packing
from bugbox.session.download import download, is_address
from bugbox.session.packing import Added
from bugbox.storage import file

__all__ = ["add", "facts", "tell"]

_LIMIT = 4 << 30


def add(source: str, /, *, replace: bool = False, json: bool = False) -> int:
    """Take a packed puzzle into the catalogue; it says whose it is, and runs nothing on this host.

    Args:
        source: The file that `bugbox pack` wrote, or its address (http or https).
        replace: Put it in the place of another one of the same name.
        json: Print one JSON document.
    """
    home = Home()
    with shown(), _fetched(home, source) as path:
        added = packing.add(home, path, replace=replace)
    if json:
        document(facts(added))
    else:
        tell(home, added)
    return 0


@contextmanager
def _fetched(home: Home, source: str) -> Iterator[Path]:
    if not is_address(source):
        path = Path(source)
        if not path.is_file():
            raise NotFound(f"{source}: no such file", hint="bugbox pack NAME writes one")
        yield path
        return
    home.prepare()
    with file.workspace(home.tmp, "download") as work:
        download(source, work / "fetched.bugbox", limit=_LIMIT)
        yield work / "fetched.bugbox"


def facts(added: Added) -> dict[str, Any]:
    """Return what is known of an added puzzle, for JSON."""
    wishes = added.puzzle.manifest
    return {
        "name": added.puzzle.name,
        "title": added.puzzle.title,
        "version": wishes.version,
        "authors": [author.name for author in wishes.authors],
        "license": wishes.license,
        "sha256": added.sha256,
        "layer": added.layer,
        "for_learners": added.for_learners,
        "new": added.new,
        "folder": str(added.puzzle.folder),
    }


def tell(home: Home, added: Added) -> None:
    """Say whose puzzle it is, and how to play it."""
    puzzle, wishes = added.puzzle, added.puzzle.manifest
    say(f"{puzzle.name}: {printable(puzzle.title)}" + ("" if added.new else " (was there already)"))
    authors = ", ".join(author.name for author in wishes.authors) or "not named"
    say(f"  author:  {printable(authors)}")
    say(f"  licence: {printable(wishes.license or 'not named')}")
    say(f"  digest:  sha256:{added.sha256}")
    other = packing.origin(home, store.find_base(home, puzzle.base), puzzle)
    if other:
        say(f"  layer:   {printable(other)}")
    say(f"  bugbox play {puzzle.name}")
