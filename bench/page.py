# SPDX-License-Identifier: Apache-2.0
"""The results as Markdown and as a picture. Pure: values in, text out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from bench.promises import Finding, Verdict
from bench.series import Series

__all__ = ["limits_svg", "markdown", "svg"]

_ROW, _LEFT, _BAR, _TOP = 34, 360, 420, 64
_LIMIT_LEFT = 290
_OTHERS = ("docker", "stock")
_FONT = 'font-family="system-ui, sans-serif" font-size="14"'


def markdown(
    series: Sequence[Series], verdicts: Sequence[Verdict], findings: Sequence[Finding] = ()
) -> str:
    """Return tables: what was measured, and what it says of the promises."""
    lines = ["| measured | n | p50 | p99 | noise |", "|---|---|---|---|---|"]
    for s in series:
        if s.values:
            lines.append(
                f"| {s.title} | {len(s.values)} | {_number(s.p50)} {s.unit} "
                f"| {_number(s.p99)} {s.unit} | ±{s.spread * 100:.0f} % |"
            )
        else:
            lines.append(f"| {s.title} | 0 | | | left out: {s.note} |")
    if verdicts:
        lines += ["", "| promise | beside | ratio (worst to best round) | at least | aim | |"]
        lines += ["|---|---|---|---|---|---|"]
    for v in verdicts:
        lines.append(
            f"| {v.promise.title} | {v.other.title} | {v.ratio.p50:.1f}x "
            f"({v.ratio.low:.1f} to {v.ratio.high:.1f}) | {v.promise.least:g}x "
            f"| {v.promise.aim:g}x | {'kept' if v.kept else '**not kept**'} |"
        )
    if findings:
        lines += ["", "| never more than | limit | measured | |", "|---|---|---|---|"]
    for f in findings:
        kind = "" if f.limit.of == "max" else f" ({f.limit.of})"
        lines.append(
            f"| {f.limit.title}{kind} | {f.limit.most:g} {f.limit.unit} "
            f"| {_number(f.value)} {f.limit.unit} | {'kept' if f.kept else '**not kept**'} |"
        )
    return "\n".join(lines) + "\n"


def svg(series: Sequence[Series], subtitle: str) -> str:
    """Return bars on a logarithmic scale, shortest first: the median, and a whisker to the p99."""
    timed = (s for s in series if s.unit == "ms" and s.values and s.p50 > 0)
    shown = sorted(timed, key=lambda s: s.p50)
    height = _TOP + _ROW * len(shown) + 40
    width = _LEFT + _BAR + 110
    low = min((s.p50 for s in shown), default=1.0) / 2
    high = max((s.p99 for s in shown), default=10.0)

    def x(value: float) -> float:
        return _LEFT + _BAR * math.log(value / low) / math.log(high / low)

    parts = _head(width, height, "How long it takes", subtitle)
    for mark in _marks(low, high):
        parts.append(
            f'<line x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{_TOP}" y2="{height - 34}" '
            f'stroke="#e6e9ed"/><text x="{x(mark):.1f}" y="{height - 16}" font-size="11" '
            f'fill="#59636e" text-anchor="middle">{_time(mark)}</text>'
        )
    for row, s in enumerate(shown):
        y = _TOP + row * _ROW + 8
        colour = "#8c959f" if s.name.split(".")[0] in _OTHERS else "#1f883d"
        parts.append(
            f'<text x="{_LEFT - 12}" y="{y + 15}" fill="#1f2328" text-anchor="end">'
            f"{escape(s.title)}</text>"
            f'<rect x="{_LEFT}" y="{y}" width="{x(s.p50) - _LEFT:.1f}" height="20" rx="3" '
            f'fill="{colour}"/>'
            f'<line x1="{x(s.p50):.1f}" x2="{x(s.p99):.1f}" y1="{y + 10}" y2="{y + 10}" '
            f'stroke="#1f2328" stroke-width="1.5"/>'
            f'<text x="{max(x(s.p99), x(s.p50)) + 8:.1f}" y="{y + 15}" fill="#1f2328">'
            f"{_time(s.p50)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def limits_svg(findings: Sequence[Finding], subtitle: str) -> str:
    """Return bars, each as long as what was measured is of its limit: that is the line."""
    height, width = _TOP + _ROW * len(findings) + 24, _LIMIT_LEFT + _BAR + 170
    full = _BAR / 1.5
    parts = _head(width, height, "What is never more than", subtitle)
    for row, f in enumerate(findings):
        y = _TOP + row * _ROW + 8
        share = f.value / f.limit.most if f.limit.most else 1.5 * (f.value > 0)
        said = f"{_number(f.value)} of {f.limit.most:g} {f.limit.unit}".rstrip()
        length = full * min(share, 1.5)
        parts.append(
            f'<text x="{_LIMIT_LEFT - 12}" y="{y + 15}" fill="#1f2328" text-anchor="end">'
            f"{escape(f.limit.title)}</text>"
            f'<rect x="{_LIMIT_LEFT}" y="{y}" width="{length:.1f}" height="20" rx="3" '
            f'fill="{"#1f883d" if f.kept else "#cf222e"}"/>'
            f'<text x="{_LIMIT_LEFT + max(length, full) + 8:.1f}" y="{y + 15}" '
            f'fill="#1f2328">{escape(said)}</text>'
        )
    x = _LIMIT_LEFT + full
    parts.append(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 20}" stroke="#1f2328"/>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _head(width: int, height: int, title: str, subtitle: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {_FONT}>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        f'<text x="24" y="30" font-size="18" font-weight="600" fill="#1f2328">{title}</text>',
        f'<text x="24" y="50" font-size="12" fill="#59636e">{escape(subtitle)}</text>',
    ]


def _marks(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    return [10.0**power for power in powers]


def _time(milliseconds: float) -> str:
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.3g} s"
    return f"{milliseconds:.3g} ms"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
