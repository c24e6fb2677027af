# SPDX-License-Identifier: Apache-2.0
"""Something wrong in a puzzle's folder, with the place to put the cursor."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bugbox.errors import DefinitionError
from bugbox.puzzle.text import one_line

__all__ = ["Loc", "Position", "Problem", "definition_error", "key_path", "shown_path"]

_MAX_SHOWN = 50
#: The way to a value: ("checks", 0, "timeout").
Loc = tuple[str | int, ...]


class Position(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong; printed as `file:line:column: key: message`."""

    file: Path
    line: int
    column: int
    #: The key's path, such as `checks[0].timeout`; empty outside the manifest.
    key: str
    message: str

    @classmethod
    def at(cls, file: Path, place: Position, loc: Loc, message: str) -> Problem:
        """Make one from a position and a key's location."""
        return cls(
            file=file, line=place.line, column=place.column, key=key_path(loc), message=message
        )

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        where = f"{shown_path(self.file)}:{self.line}:{self.column}"
        return one_line(f"{where}: {key}{self.message}", 600)


def key_path(loc: Loc) -> str:
    """Write ("checks", 0, "timeout") as `checks[0].timeout`."""
    path = ""
    for part in loc:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def shown_path(file: Path) -> str:
    """Return the path as seen from where we stand, when it is below; else in full."""
    try:
        here = Path.cwd()
        # The keeper stands in "/", and everything is below that.
        return os.fspath(file if here == Path("/") else file.relative_to(here))
    except (ValueError, OSError):
        return os.fspath(file)


def definition_error(problems: Iterable[Problem]) -> DefinitionError:
    """Put all problems, in the order of the files' lines, in one error."""
    ordered = sorted(
        problems,
        key=lambda each: (each.file.name != "puzzle.yaml", each.file, each.line, each.column),
    )
    lines = [str(each) for each in ordered[:_MAX_SHOWN]]
    if len(ordered) > _MAX_SHOWN:
        lines.append(f"and {len(ordered) - _MAX_SHOWN} more")
    return DefinitionError("\n".join(lines))
