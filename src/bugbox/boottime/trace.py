# SPDX-License-Identifier: Apache-2.0
"""One start as a picture: each span a bar, on one clock, from the command's start on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["draw"]

_WIDTH, _LEFT, _RIGHT = 900, 190, 80
_ROW, _TOP = 24, 58

_STYLE = """
.trace { --paper:#ffffff; --ink:#1f2328; --soft:#656d76; --line:#d8dee4; --bar:#3b82c4; }
@media (prefers-color-scheme: dark) { .trace { --paper:#0d1117; --ink:#e6edf3; --soft:#8d96a0;
  --line:#30363d; --bar:#4b93d6; } }
.trace text { font-family: ui-sans-serif, -apple-system, "Segoe UI", "Noto Sans", sans-serif;
  fill: var(--ink); font-size: 12px; }
.trace .h { font-size: 17px; font-weight: 600; }
.trace .soft { fill: var(--soft); }
"""


def draw(title: str, spans: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of spans: each has a `name`, and `begin` and `end` in seconds of one clock."""
    rows = sorted(spans, key=lambda span: (span["begin"], -span["end"]))
    first = min((span["begin"] for span in rows), default=0.0)
    length = max((span["end"] for span in rows), default=0.0) - first or 1e-6
    height = _TOP + _ROW * len(rows) + 20
    parts = [
        f'<svg class="trace" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="10" fill="var(--paper)"/>',
        f'<text x="16" y="30" class="h">{escape(title)}: {_ms(length)}</text>',
    ]
    for number, span in enumerate(rows):
        y = _TOP + number * _ROW
        parts += _bar(span, y, first, length)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bar(span: Mapping[str, Any], y: int, first: float, length: float) -> list[str]:
    scale = (_WIDTH - _LEFT - _RIGHT) / length
    x = _LEFT + (span["begin"] - first) * scale
    width = max((span["end"] - span["begin"]) * scale, 1.0)
    return [
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y + 20}" y2="{y + 20}" '
        'stroke="var(--line)"/>',
        f'<text x="16" y="{y + 14}">{escape(str(span["name"]))}</text>',
        f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="14" rx="2" fill="var(--bar)"/>',
        f'<text x="{x + width + 5:.1f}" y="{y + 14}" class="soft">'
        f"{_ms(span['end'] - span['begin'])}</text>",
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
