# SPDX-License-Identifier: Apache-2.0
"""Which puzzles there are, and which one is meant.

A name of the catalogue wins over a folder of that name where we stand; `./NAME` means the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from bugbox.errors import DefinitionError, NotFound
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import MANIFEST, Puzzle, load
from bugbox.puzzle.text import one_line

__all__ = ["Entry", "Shelf", "entries", "find", "locate", "names", "roots"]

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A folder of the catalogue: a puzzle, or why it is none."""

    name: str
    folder: Path
    puzzle: Puzzle | None
    error: str = ""


def roots(extra: str = "", home: Home | None = None) -> tuple[Path, ...]:
    """Return the folders that hold puzzles: those of the setting `puzzles`, the shipped, the added.

    `home` is the state directory with the added ones, the environment's when it is not given.
    """
    named = [Path(part).expanduser().absolute() for part in extra.split(":") if part]
    return (*named, shipped_puzzles(), (home or Home()).puzzles)


def names(where: Sequence[Path]) -> list[str]:
    """Return the names in the catalogue, without looking into a puzzle."""
    return sorted(_folders(where))


def entries(where: Sequence[Path]) -> list[Entry]:
    """Return the catalogue, sorted by name; the first root that has a name wins."""
    return [_entry(name, folder) for name, folder in sorted(_folders(where).items())]


def locate(ref: str | None, where: Sequence[Path], cwd: Path) -> Path:
    """Return the folder that `ref` means: a name, a folder, or None for the one we stand in.

    NotFound names the nearest puzzles.
    """
    if ref is None:
        if (cwd / MANIFEST).exists():
            return cwd
        raise NotFound(
            f"no puzzle named, and no {MANIFEST} in {cwd}", hint="bugbox list shows the puzzles"
        )
    folder = _folders(where).get(ref)
    if folder is not None:
        return folder
    try:
        path = cwd / Path(ref).expanduser()
        if path.name == MANIFEST and path.is_file():
            return path.parent
        if (path / MANIFEST).exists():
            return path
        raise _unknown(ref, path, where)
    except (OSError, ValueError, RuntimeError):  # too long a name, a NUL in it, ~nobody
        raise NotFound(
            f"{one_line(ref, 80)} cannot be the name of a puzzle",
            hint="bugbox list shows the puzzles",
        ) from None


def find(ref: str | None, where: Sequence[Path], cwd: Path) -> Puzzle:
    """Locate and load a puzzle."""
    return load(locate(ref, where, cwd))


class Shelf:
    """Puzzles that were loaded, good for as long as nothing in their folders changes.

    For a process that starts the same ones again and again: to look is a tenth of to load.
    """

    #: Folders with more entries than this are loaded each time.
    _MOST = 500

    def __init__(self) -> None:
        self._known: dict[Path, tuple[list[tuple[object, ...]], Puzzle]] = {}

    def find(self, ref: str | None, where: Sequence[Path], cwd: Path) -> Puzzle:
        """Locate a puzzle; load it if it is not known as it is now."""
        folder = locate(ref, where, cwd)
        look = self._look(folder)
        kept = self._known.get(folder)
        if kept is not None and look and kept[0] == look:
            return kept[1]
        puzzle = load(folder)
        if look and self._look(folder) == look:
            self._known[folder] = (look, puzzle)
        return puzzle

    def _look(self, folder: Path) -> list[tuple[object, ...]]:
        """Return what changes when anything in the folder does; nothing when that is much."""
        found: list[tuple[object, ...]] = []
        try:
            for place, folders, files in os.walk(folder):
                for name in (".", *folders, *files):
                    path = os.path.join(place, name)  # noqa: PTH118 (many, on the path of a start)
                    for info in (os.lstat(path), os.stat(path)):  # noqa: PTH116
                        seen = (info.st_mode, info.st_ino, info.st_size)
                        found.append((path, *seen, info.st_mtime_ns, info.st_ctime_ns))
                if len(found) > self._MOST:
                    return []
        except OSError:
            return []
        return found


def _folders(where: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in where:
        for folder in _children(root):
            found.setdefault(folder.name, folder)
    return found


def _children(root: Path) -> Iterator[Path]:
    try:
        children = list(root.iterdir())
    except OSError:
        return  # a folder of the settings that is not there, or not ours to read
    for child in children:
        if _NAME.fullmatch(child.name) and (child / MANIFEST).is_file():
            yield child


def _entry(name: str, folder: Path) -> Entry:
    try:
        return Entry(name=name, folder=folder, puzzle=load(folder))
    except (DefinitionError, NotFound) as error:
        return Entry(name=name, folder=folder, puzzle=None, error=error.message)


def _unknown(ref: str, path: Path, where: Sequence[Path]) -> NotFound:
    shown = one_line(ref, 80)
    if path.is_file():
        return NotFound(
            f"{shown} is a file", hint=f"a packed puzzle is taken in by bugbox add {shown}"
        )
    if path.is_dir():
        return NotFound(f"{shown} is a folder without a {MANIFEST}", hint="bugbox lint shows more")
    if "/" in ref:
        return NotFound(f"{shown}: no such folder")
    known = names(where)
    near = get_close_matches(ref, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return NotFound(f"no puzzle is called {shown}", hint=hint if known else None)
