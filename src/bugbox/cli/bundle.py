# SPDX-License-Identifier: Apache-2.0
"""bugbox bundle: everything a room without a network needs, in one file."""

from __future__ import annotations

from pathlib import Path

from bugbox.cli import prepare
from bugbox.cli.add import facts, tell
from bugbox.cli.events import shown
from bugbox.cli.out import document, printable, say
from bugbox.config import load as load_settings
from bugbox.errors import NotFound
from bugbox.paths import Home
from bugbox.puzzle.catalogue import entries, find, roots
from bugbox.session.bundle import bundle_load, bundle_save

__all__ = ["load", "save"]


def save(file: Path, /, *names: str, for_learners: bool = False, json: bool = False) -> int:
    """Write puzzles, their base images and the kernel to one file; what is missing is built first.

    Args:
        file: The new file.
        names: Which puzzles. Without one, the whole catalogue.
        for_learners: Leave solutions, wrong fixes and walkthroughs out.
        json: Print one JSON document.
    """
    home = Home()
    where = roots(load_settings(home).puzzles)
    if names:
        puzzles = [find(name, where, Path.cwd()) for name in names]
    else:
        puzzles = [entry.puzzle for entry in entries(where) if entry.puzzle is not None]
    for puzzle in puzzles:
        prepare.ensure(str(puzzle.folder))
    with shown():
        digest = bundle_save(home, puzzles, file, for_learners=for_learners)
    size = file.stat().st_size
    if json:
        document({"output": str(file), "sha256": digest, "size_bytes": size})
    else:
        say(f"{printable(str(file))}: {size >> 20} MiB, sha256:{digest}")
        say(f"  bugbox bundle load {printable(str(file))}")
    return 0


def load(file: Path, /, *, json: bool = False) -> int:
    """Take everything in a bundle in: afterwards its puzzles play without a network.

    Its kernel and base image will run your machines: load what you trust.

    Args:
        file: What `bugbox bundle save` wrote.
        json: Print one JSON document.
    """
    if not file.is_file():
        raise NotFound(f"{file}: no such file", hint="bugbox bundle save FILE writes one")
    home = Home()
    with shown():
        loaded = bundle_load(home, file)
    if json:
        document(
            {
                "kernel": loaded.kernel,
                "images": [*loaded.images],
                "puzzles": [facts(added) for added in loaded.puzzles],
                "shipped": [*loaded.shipped],
            }
        )
        return 0
    say(f"kernel {printable(loaded.kernel)}, base image {printable(', '.join(loaded.images))}")
    for added in loaded.puzzles:
        tell(home, added)
    for name in loaded.shipped:
        say(f"{name}: comes with bugbox\n  bugbox play {name}")
    return 0
