# SPDX-License-Identifier: Apache-2.0
"""How `--help` looks: two aligned columns of plain text, the same on a terminal and in a page."""

from __future__ import annotations

import textwrap
from typing import Any

__all__ = ["Columns"]

_MOST = 96
_NAMES = 26


class Columns:
    """A help formatter for cyclopts."""

    def __call__(self, console: Any, _options: Any, panel: Any) -> None:
        """Write one block: a title and its entries."""
        entries = [(_names(entry), _about(entry)) for entry in panel.entries]
        if not entries:
            return
        left = min(_NAMES, max(len(names) for names, _ in entries)) + 4
        _print(console, f"{panel.title}:")
        for names, about in entries:
            head = f"  {names}"
            if about and len(head) > left - 2:
                _print(console, head)
                head = ""
            text = textwrap.fill(
                about,
                width=min(_MOST, console.width),
                initial_indent=head.ljust(left),
                subsequent_indent=" " * left,
                break_on_hyphens=False,
            )
            _print(console, text or head)
        _print(console, "")

    def render_usage(self, console: Any, _options: Any, usage: Any) -> None:
        """Write the first line."""
        _print(console, f"{_plain(usage)}\n")

    def render_description(self, console: Any, _options: Any, description: Any) -> None:
        """Write what the command is for."""
        paragraphs = _plain(description).split("\n\n")
        width = min(_MOST, console.width)
        text = "\n\n".join(textwrap.fill(" ".join(p.split()), width) for p in paragraphs if p)
        if text:
            _print(console, f"{text}\n")


def _names(entry: Any) -> str:
    return ", ".join(entry.display_labels_with_metavar) or " ".join(entry.positive_names)


def _about(entry: Any) -> str:
    parts = [" ".join(_plain(entry.description).split())]
    if entry.choices:
        parts.append(f"One of {', '.join(entry.choices)}.")
    if entry.default:
        parts.append(f"Default: {entry.default}.")
    return " ".join(part for part in parts if part)


def _plain(value: Any) -> str:
    """Take the text out of what the library would render with colours."""
    if value is None:
        return ""
    found = getattr(value, "primary_renderable", value)
    plain = getattr(found, "plain", None)
    return str(found if plain is None else plain).strip()


def _print(console: Any, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
