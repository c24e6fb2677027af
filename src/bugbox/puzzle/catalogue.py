# SPDX-License-Identifier: Apache-2.0
"""Which puzzles there are, and which one is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bugbox.puzzle.definition import Puzzle

__all__ = ["Entry", "entries", "find", "locate", "roots"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder of the catalogue: a puzzle, or why it is none."""

    name: str
    folder: Path
    puzzle: Puzzle | None
    error: str = ""


def roots(extra: str = "") -> tuple[Path, ...]:
    """Return the folders that hold puzzles: those of the setting `puzzles`, then the shipped."""
    raise NotImplementedError


def entries(where: Sequence[Path]) -> list[Entry]:
    """Return the catalogue, sorted by name; the first root that has a name wins."""
    raise NotImplementedError


def locate(ref: str | None, where: Sequence[Path], cwd: Path) -> Path:
    """Return the folder that `ref` means: a name, a folder, or None for the one we stand in.

    NotFound names the nearest puzzles.
    """
    raise NotImplementedError


def find(ref: str | None, where: Sequence[Path], cwd: Path) -> Puzzle:
    """Locate and load a puzzle."""
    raise NotImplementedError
