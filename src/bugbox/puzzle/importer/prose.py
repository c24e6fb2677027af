# SPDX-License-Identifier: Apache-2.0
"""A scenario's Markdown as a puzzle's: without what only a web page can do. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Prose", "converted"]

_ACTION = re.compile(r"\{\{\s*(?:exec(?:ute)?|copy|open)\b[^{}\n]*\}\}", re.IGNORECASE)
_TRAFFIC = re.compile(r"\{\{\s*TRAFFIC_(?:HOST[0-9]+_([0-9]{1,5})|SELECTOR)\s*\}\}")
_OLD_TRAFFIC = re.compile(r"https?://\[\[HOST_SUBDOMAIN\]\]-([0-9]{1,5})-\[\[KATACODA_HOST\]\]\S*")
_PLACEHOLDER = re.compile(r"\{\{([^{}\n]*)\}\}")
# Repetitions have bounds, or a strange text would cost the square of its length.
_PICTURE = re.compile(r"!\[([^\]\n]{0,300})\]\([^)\n]{0,1000}\)")
_OPENS = re.compile(r"<details[^>]{0,200}>", re.IGNORECASE)
_CLOSES = re.compile(r"</details>", re.IGNORECASE)
_SUMMARY = re.compile(r"<summary[^>]{0,200}>(.{0,2000}?)</summary>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?(?:br|plain|b|i|p|span|div|u|center|font)\b[^>\n]{0,200}>", re.IGNORECASE)
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """A text in two parts, what was cut out of it, and what it speaks of."""

    #: For the learner.
    text: str
    #: What was folded away: mostly the solution.
    folded: str
    #: The code blocks of that.
    commands: tuple[str, ...]
    #: Ports whose pages it links to.
    ports: tuple[int, ...]
    pictures: int
    actions: int


def converted(text: str) -> Prose:
    """Convert one text."""
    shown, parts = _apart(text)
    folded = "\n\n".join(map(_unfolded, parts))
    ports = [*_TRAFFIC.findall(text), *_OLD_TRAFFIC.findall(text)]
    numbers = sorted({int(port) for port in ports if port and 0 < int(port) < 65536})
    return Prose(
        text=_plain(shown),
        folded=_plain(folded),
        commands=tuple(_plain(block).strip("\n") for block in _BLOCK.findall(folded)),
        ports=tuple(numbers),
        pictures=len(_PICTURE.findall(text)),
        actions=len(_ACTION.findall(text)),
    )


def _apart(text: str) -> tuple[str, list[str]]:
    """Take what is folded away out of a text."""
    shown, parts, at = [], [], 0
    while (begin := _OPENS.search(text, at)) and (end := _CLOSES.search(text, begin.end())):
        shown.append(text[at : begin.start()])
        parts.append(text[begin.end() : end.start()])
        at = end.end()
    return "".join([*shown, text[at:]]), parts


def _unfolded(part: str) -> str:
    summary = _SUMMARY.search(part)
    rest = _SUMMARY.sub("", part).strip()
    title = _TAG.sub("", summary[1]).strip() if summary else ""
    return f"**{title}**\n\n{rest}" if title else rest


def _plain(text: str) -> str:
    text = _ACTION.sub("", text)
    text = _TRAFFIC.sub(lambda m: f"http://127.0.0.1:{m[1] or 80}", text)
    text = _OLD_TRAFFIC.sub(lambda m: f"http://127.0.0.1:{m[1]}", text)
    text = _PICTURE.sub(lambda m: f"({m[1]})" if m[1] else "", text)
    # Two braces would be a variant here.
    text = _PLACEHOLDER.sub(lambda m: "{ {" + m[1] + "} }", text)
    text = _TAG.sub("", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
