# SPDX-License-Identifier: Apache-2.0
"""Puzzles with one fault each, and the stage of `bugbox test` that must find it."""

import shutil
from pathlib import Path

from bugbox.puzzle.scaffold import create

__all__ = ["AT_LINT", "ON_A_MACHINE", "make"]

_FOLDER = Path(__file__).parent / "broken"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

#: What lint says about it, without a machine.
AT_LINT = {
    "set-e": "set -e in a check",
    "telling-hint": "hint 1 holds a line of the solution",
    "random-in-build": "a layer is the same for all sessions",
    "alias-bomb": "anchors and aliases",
    "long-description": "larger than 64 KiB",
}
#: The stage that fails, and a part of what it says.
ON_A_MACHINE = {
    "writing-check": ("honest", "/home/learner/last-check"),
    "breaks-again": ("reboot", "after a reboot: readable still fails"),
    "dumb-check": ("untouched", "readable fails without a sentence"),
    "passes-untouched": ("untouched", "readable passes on the untouched machine"),
}


def make(parent: Path, name: str) -> Path:
    """Write the puzzle `name` below `parent`; its folder."""
    folder = create(parent, name)
    manifest = folder / "puzzle.yaml"
    if name == "alias-bomb":
        manifest.write_text(manifest.read_text() + _BOMB)
    elif name == "long-description":
        with (folder / "description.md").open("r+b") as file:
            file.truncate(100 << 20)
    else:
        shutil.copytree(_FOLDER / name, folder, dirs_exist_ok=True)
    if name == "random-in-build":
        manifest.write_text(manifest.read_text() + "variants:\n  TOKEN: {random: hex}\n")
    return folder
