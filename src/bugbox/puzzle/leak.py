# SPDX-License-Identifier: Apache-2.0
"""Find in a layer what a learner must not find in the machine: checks, solutions, hints.

A whole line of them, in a text file of the layer, is a leak. Lines that a puzzle shows anyway, and
lines so short that anybody would write them, are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.text import one_line

__all__ = ["Leak", "Secrets", "find", "secrets"]

#: Shorter lines (`set -eu`, `done`, `exit 1`) give nothing away.
_TELLING = 16
#: Larger files of a layer are searched up to here.
FILE_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """A line of the layer that should not be there."""

    path: str
    line: int
    #: Where in the puzzle's folder it stands too.
    source: str
    text: str

    def __str__(self) -> str:
        return f'/{self.path} line {self.line} holds a line of {self.source}: "{self.text}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What to look for."""

    #: By the line, blanks squeezed: the file of the puzzle it comes from.
    lines: dict[bytes, str]
    #: Texts that the manifest forbids, wherever they stand.
    forbidden: tuple[bytes, ...] = ()


def secrets(puzzle: Puzzle, forbidden: Sequence[str] = ()) -> Secrets:
    """Collect every telling line of what is never placed in a guest."""
    scripts = [*puzzle.check_scripts, *puzzle.solutions]
    told = {_squeezed(line) for line in puzzle.description.encode().splitlines()}
    sources: list[tuple[str, bytes]] = [(script.name, script.text) for script in scripts]
    sources += [(f"hint {n}", _prose(hint.text)) for n, hint in enumerate(puzzle.hints, 1)]
    sources += [("the walkthrough", _prose(puzzle.walkthrough))]
    sources += [("the debrief", _prose(puzzle.debrief))]
    lines: dict[bytes, str] = {}
    for name, text in sources:
        for line in map(_squeezed, text.splitlines()):
            if len(line) >= _TELLING and line not in told:
                lines.setdefault(line, name)
    return Secrets(lines=lines, forbidden=tuple(text.encode() for text in forbidden))


def _prose(markdown: str) -> bytes:
    """Return a text without its blocks of code, which quote what is in the machine anyway."""
    kept, fenced = [], False
    for line in markdown.splitlines():
        if line.startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and not line.startswith(("    ", "\t")):
            kept.append(line)
    return "\n".join(kept).encode()


def find(hidden: Secrets, files: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[Leak]:
    """Look through files, each a path and its contents in pieces."""
    for path, pieces in files:
        for number, line in enumerate(_lines(pieces), 1):
            squeezed = _squeezed(line)
            source = hidden.lines.get(squeezed)
            if source is None and any(text in line for text in hidden.forbidden):
                source = "test.forbid_text_in_guest"
            if source is not None:
                yield Leak(path=path, line=number, source=source, text=one_line(squeezed, 80))


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces into lines; one that never ends is cut into parts."""
    rest, size = b"", 0
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        size += len(piece)
        if len(rest) > 1 << 20:
            yield rest
            rest = b""
        if size > FILE_LIMIT:
            return
    if rest:
        yield rest


def _squeezed(line: bytes) -> bytes:
    return b" ".join(line.split())
