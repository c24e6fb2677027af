# SPDX-License-Identifier: Apache-2.0
"""What a person reads: text, tables and one JSON document. Standard library only.

Answers go to standard output, everything about the work to standard error. Text that comes from a
guest or a puzzle passes through `printable` before it meets a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from bugbox.puzzle.text import printable

__all__ = [
    "STDOUT",
    "agreed",
    "coloured",
    "complain",
    "document",
    "duration",
    "flush",
    "paint",
    "printable",
    "prose",
    "say",
    "table",
]

#: What standard output is called in errors.
STDOUT = "standard output"
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def coloured(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that shows colours, and NO_COLOR is not set."""
    return (
        not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
        and stream.isatty()
    )


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Colour `text` where `stream` (standard output) shows colours."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """Print a line of the answer."""
    with _named():
        print(text)


def complain(text: str) -> None:
    """Print a line about the work: progress, notices, errors. Nobody may be there to read it."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """Print the one JSON document of a command."""
    with _named():
        print(json.dumps(value, indent=2, ensure_ascii=not _utf8(sys.stdout)))


def flush() -> None:
    """Give what was printed to whoever reads it."""
    with _named():
        sys.stdout.flush()


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Say in a refusal that it was standard output: the kernel does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or STDOUT
        raise


def _utf8(stream: TextIO) -> bool:
    # Lone surrogates cannot be written in UTF-8; the reader of a pipe gets plain ASCII.
    return stream.isatty() and (stream.encoding or "").lower().replace("-", "") == "utf8"


def agreed(question: str) -> bool:
    """Ask whoever sits at the terminal; only a plain yes is one, and the end of input is not."""
    complain(question)
    sys.stderr.write("go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns under a head."""
    lines = [[*head], *([printable(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for number, line in enumerate(lines):
        cells = zip(line, widths, strict=True)
        text = "  ".join(cell.ljust(width) for cell, width in cells).rstrip()
        say(text if number else paint(text, "bold"))


def prose(markdown: str) -> str:
    """Lay out a puzzle's text for standard output."""
    from bugbox.puzzle.markdown import render  # not for the commands that only print a line

    try:
        width = min(os.get_terminal_size(sys.stdout.fileno()).columns or 80, 100)
    except (OSError, ValueError):
        width = 80
    return render(markdown, width, colour=coloured(sys.stdout)).rstrip("\n")


def duration(seconds: float) -> str:
    """Write a time as people say it: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
