# SPDX-License-Identifier: Apache-2.0
"""What an import could not take along as it was, and what is left for the author to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bugbox.puzzle.text import one_line

__all__ = ["KINDS", "Kind", "Note", "Notes"]

Kind = Literal["lost", "changed", "todo"]
#: In the order in which they are told, with what each means.
KINDS: dict[Kind, str] = {
    "lost": "Not carried over",
    "changed": "Carried over differently",
    "todo": "For you to do",
}


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know; `where` is a file of the source or the result, or a key."""

    kind: Kind
    where: str
    message: str


@dataclass(slots=True)
class Notes:
    """All notes of one import, each once."""

    found: list[Note] = field(default_factory=list)

    def add(self, kind: Kind, where: str, message: str) -> None:
        """Note something, with its text made printable."""
        note = Note(kind, one_line(where, 120), one_line(message))
        if note not in self.found:
            self.found.append(note)

    def lost(self, where: str, message: str) -> None:
        """Note what has no counterpart."""
        self.add("lost", where, message)

    def changed(self, where: str, message: str) -> None:
        """Note what is another thing here."""
        self.add("changed", where, message)

    def todo(self, where: str, message: str) -> None:
        """Note what only the author can do."""
        self.add("todo", where, message)
