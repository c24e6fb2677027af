# SPDX-License-Identifier: Apache-2.0
"""The Markdown of descriptions, hints and solutions, laid out for a terminal.

The simple part of the language only: what is not understood stays as it is written.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from bugbox.puzzle.text import printable

__all__ = ["render"]

_LINK = re.compile(r"\[([^\]\n]+)\]\(<?([^)\s>]+)>?\)")
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_EMPHASIS = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])")
_ITEM = re.compile(r"(\s*)([-*+]|[0-9]{1,3}[.)])\s+(.*)")
_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def render(markdown: str, width: int = 80, *, colour: bool = False) -> str:
    """Lay out the Markdown of a puzzle for a terminal: simple, and every control byte escaped.

    Headings, paragraphs, lists, quotes and code; the rest stays as it is written. Without
    `colour` the result is plain text.
    """
    width = max(20, width)
    bold, dim, plain = (_BOLD, _DIM, _PLAIN) if colour else ("", "", "")
    out: list[str] = []
    for kind, lines in _blocks(printable(markdown).expandtabs(4).split("\n")):
        text = " ".join(line.strip() for line in lines)
        if kind == "code":
            out += [f"    {dim}{line}{plain}".rstrip() for line in lines]
        elif kind == "heading":
            out.append(f"{bold}{_inline(text.strip('# '), '', '')}{plain}")
        elif kind == "quote":
            quoted = " ".join(line.strip().lstrip(">").strip() for line in lines)
            out += _wrapped(_inline(quoted, bold, plain), width, "  | ", "  | ")
        elif kind == "item":
            indent, mark, rest = _item(text, lines[0])
            first = f"{indent}{mark} "
            out += _wrapped(_inline(rest, bold, plain), width, first, " " * len(first))
        elif kind == "text":
            out += _wrapped(_inline(text, bold, plain), width, "", "")
        else:
            out.append("")
    return "\n".join(out).strip("\n") + "\n"


def _item(text: str, first: str) -> tuple[str, str, str]:
    match = _ITEM.match(first)
    if match is None:
        return "", "-", text
    mark = match[2] if match[2][0].isdigit() else "-"
    return match[1], mark, text[len(match[2]) :].strip()


def _inline(text: str, bold: str, plain: str) -> str:
    """Strong words, and links with their address after them; code keeps its back quotes."""
    parts = re.split(r"(`[^`]+`)", text)
    for n in range(0, len(parts), 2):
        linked = _LINK.sub(lambda match: f"{match[1]} ({match[2]})", parts[n])
        strong = _STRONG.sub(lambda match: f"{bold}{match[2]}{plain}", linked)
        parts[n] = _EMPHASIS.sub(lambda match: f"{bold}{match[1]}{plain}", strong)
    return "".join(parts)


def _wrapped(text: str, width: int, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Group lines into blocks: code, heading, quote, item, text, or an empty line."""
    kind, block, fence = "", list[str](), ""
    for line in lines:
        stripped = line.strip()
        if fence:
            if stripped.startswith(fence):
                fence = ""
                yield "code", block
                block = []
            else:
                block.append(line)
            continue
        new = _kind(line, kind)
        if new != "more" and block:
            yield kind, block
            block = []
        if new == "fence":
            kind, fence = "", stripped[:3]
        elif new == "empty":
            kind = ""
            yield "empty", []
        else:
            kind = kind if new == "more" else new
            block.append(line[4:] if kind == "code" else line)
    if block:
        yield "code" if fence else kind, block


def _kind(line: str, before: str) -> str:
    """Say what a line starts, or `more` when it goes on with the block before it."""
    stripped = line.strip()
    if not stripped:
        return "empty"
    if stripped.startswith(("```", "~~~")):
        return "fence"
    if re.match(r"#{1,6} ", stripped):
        return "heading"
    if line.startswith("    ") and before in ("", "code"):
        return "more" if before == "code" else "code"
    if _ITEM.match(line):
        return "item"
    if stripped.startswith(">"):
        return "more" if before == "quote" else "quote"
    return "more" if before in ("text", "item", "quote") else "text"
