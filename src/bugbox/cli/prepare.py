# SPDX-License-Identifier: Apache-2.0
"""Build what a start needs, in this process: kernel, base image, the puzzle's layer."""

from __future__ import annotations

from pathlib import Path

from bugbox.cli.events import shown
from bugbox.cli.loop import run_async
from bugbox.cli.out import complain, duration
from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.puzzle.definition import Puzzle
from bugbox.session import artefact, cloning, prepare
from bugbox.session.prepare import Builder, Prepared

__all__ = ["announce", "ensure", "store_layer", "warm"]


def ensure(
    puzzle: str | None,
    image: str | None = None,
    kernel: str = "",
    builder: Builder = "vm",
) -> Prepared:
    """Build what is missing for a puzzle, or for a bare machine of an image."""
    home = Home()
    settings = load(home)
    home.prepare()
    wanted = image or find(puzzle, roots(settings.puzzles), Path.cwd())
    with shown():
        return prepare.ensure(home, settings, wanted, booted=kernel, builder=builder)


def store_layer(image: str, source: Path) -> str:
    """Bring a layer's file into the store, with what its base image needs; return its key."""
    home = Home()
    settings = load(home)
    home.prepare()
    with shown():
        parts = prepare.layer_parts(home, settings, image)
        return run_async(lambda: artefact.stored(parts, source)).key


def warm(puzzle: str, parts: Prepared) -> bool:
    """Make the puzzle's template; False where machines cannot be cloned."""
    home = Home()
    settings = load(home)
    wanted = find(puzzle, roots(settings.puzzles), Path.cwd())
    with shown():
        return run_async(lambda: cloning.warm(home, settings, wanted, parts))


def announce(puzzle: Puzzle) -> None:
    """Say what is missing, how big it is and how long it takes, before a first run."""
    home = Home()
    missing = prepare.estimate(home, load(home), puzzle)
    if not missing:
        return
    download = sum(part.download_bytes for part in missing) >> 20
    disk = sum(part.disk_bytes for part in missing) >> 20
    seconds = sum(part.seconds for part in missing)
    what = ", ".join(part.what for part in missing)
    amount = f"about {download} MiB to download, " if download else ""
    complain(f"To be made first, and only once: {what}.")
    complain(f"That is {amount}{disk} MiB of disk in {home.root}, {duration(seconds)} or more.")
    complain("Ctrl-C stops it; the same command goes on from there.")
