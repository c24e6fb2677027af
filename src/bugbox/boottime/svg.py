# SPDX-License-Identifier: Apache-2.0
"""A boot as a picture: phases, the log's rhythm, a waterfall of what was timed, the findings.

One SVG that loads nothing from anywhere and follows the reader's light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from bugbox.boottime.advice import Finding
from bugbox.boottime.report import PHASES, Report, ms
from bugbox.boottime.timeline import Timeline

__all__ = ["draw"]

_WIDTH = 1000
_EDGE = 28
_ROW = 22
_MOST_ROWS = 26
_MOST_FINDINGS = 6
#: About how wide a letter of each size is.
_LETTER = {11: 6.1, 12: 6.6, 13: 7.2}

_STYLE = """
.boot { --paper:#ffffff; --ink:#1f2328; --soft:#656d76; --line:#d8dee4; --track:#f3f5f8;
  --vmm:#8b949e; --kernel:#3b82c4; --initramfs:#1f9e8f; --init:#7c5cd6; --session:#2da44e;
  --unit:#c9bdf0; --call:#3b82c4; --wait:#e5673c; }
@media (prefers-color-scheme: dark) { .boot { --paper:#0d1117; --ink:#e6edf3; --soft:#8d96a0;
  --line:#30363d; --track:#161b22; --vmm:#6e7681; --kernel:#4b93d6; --initramfs:#2bb5a4;
  --init:#9478ea; --session:#3fb950; --unit:#4b4080; --call:#4b93d6; --wait:#f0803c; } }
.boot text { font-family: ui-sans-serif, -apple-system, "Segoe UI", "Noto Sans", sans-serif;
  fill: var(--ink); font-size: 12px; }
.boot .h { font-size: 19px; font-weight: 600; }
.boot .total { font-size: 26px; font-weight: 650; text-anchor: end; }
.boot .soft { fill: var(--soft); font-size: 11px; }
.boot .on { fill: #ffffff; font-weight: 600; }
.boot .num { fill: #ffffff; font-size: 10px; font-weight: 700; text-anchor: middle; }
"""


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    start: float
    end: float
    style: str
    badge: int


class _Scale:
    """From seconds to pixels."""

    def __init__(self, timeline: Timeline) -> None:
        self.start = timeline.start
        self.seconds = max(timeline.seconds, 1e-6)

    def x(self, at: float) -> float:
        share = min(max((at - self.start) / self.seconds, 0.0), 1.0)
        return round(_EDGE + share * (_WIDTH - 2 * _EDGE), 1)


def draw(report: Report) -> str:
    """Return the picture."""
    timeline, scale = report.timeline, _Scale(report.timeline)
    listed = [f for f in report.findings if f.critical is not False][:_MOST_FINDINGS]
    badges = {id(finding): number for number, finding in enumerate(listed, start=1)}
    bars = _bars(report, badges)
    top = 152
    bottom = top + max(len(bars), 1) * _ROW + 8
    parts = [*_head(report), *_axis(scale, bottom), *_phases(timeline, scale)]
    parts += [*_rhythm(report, scale, badges)]
    parts += [part for n, bar in enumerate(bars) for part in _bar(bar, top + n * _ROW, scale)]
    parts += [*_end(timeline, scale, bottom), *_key(bars, bottom)]
    y = bottom + 42
    for number, finding in enumerate(listed, start=1):
        parts += _legend(number, finding, y, timeline)
        y += 40
    if not listed:
        parts.append(_text(_EDGE, y, f"no wait of {ms(timeline.least)} or more", "soft"))
        y += 16
    height = y + 2
    return (
        f'<svg class="boot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        f'width="{_WIDTH}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(_spoken(report))}">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect width="{_WIDTH}" height="{height:.0f}" rx="10" fill="var(--paper)"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _spoken(report: Report) -> str:
    phases = ", ".join(f"{PHASES[p.name]} {ms(p.end - p.start)}" for p in report.timeline.phases)
    return f"{report.title}: {ms(report.timeline.seconds)} ({phases})"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "") -> str:
    extra = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}"{extra}>{escape(text)}</text>'


def _rect(x: float, y: float, width: float, height: float, fill: str, extra: str = "") -> str:
    width = max(width, 0.8)
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{fill}" {extra}/>'


def _upright(x: float, top: float, bottom: float, colour: str, width: int) -> str:
    ends = f'x1="{x}" x2="{x}" y1="{top:.1f}" y2="{bottom:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _fit(text: str, width: float, size: int = 12) -> str:
    most = int(width / _LETTER[size])
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def _head(report: Report) -> Iterator[str]:
    timeline = report.timeline
    yield _text(_EDGE, 38, _fit(report.title, 760, 13), "h")
    yield _text(_WIDTH - _EDGE, 40, ms(timeline.seconds), "total")


def _phases(timeline: Timeline, scale: _Scale) -> Iterator[str]:
    """Draw one ribbon, its ends round."""
    y, height = 58, 30
    left, right = scale.x(timeline.start), scale.x(timeline.end)
    shape = _rect(left, y, right - left, height, "none", 'rx="7"')
    yield f'<clipPath id="ribbon">{shape}</clipPath>'
    yield '<g clip-path="url(#ribbon)">'
    yield _rect(left, y, right - left, height, "var(--track)")
    for phase in timeline.phases:
        x, width = scale.x(phase.start), scale.x(phase.end) - scale.x(phase.start)
        took = ms(phase.end - phase.start)
        name = PHASES[phase.name]
        yield _titled(x, y, width, height, f"var(--{phase.name})", f"{name} {took}")
        if x > left:
            yield _rect(x - 0.75, y, 1.5, height, "var(--paper)")
        for label in (f"{name}  {took}", name, took):
            if len(label) * _LETTER[12] + 12 <= width:
                yield _text(x + 9, y + 19.5, label, "on")
                break
    yield "</g>"


def _titled(
    x: float, y: float, width: float, height: float, fill: str, title: str, extra: str = ""
) -> str:
    return (
        _rect(x, y, width, height, fill, extra).removesuffix("/>")
        + f"><title>{escape(title)}</title></rect>"
    )


def _axis(scale: _Scale, bottom: float) -> Iterator[str]:
    step = _step(scale.seconds)
    count = int(scale.seconds / step + 1e-9)
    for number in range(count + 1):
        at = number * step
        x = scale.x(scale.start + at)
        yield _upright(x, 108, bottom, "var(--line)", 1)
        if x < _WIDTH - _EDGE - 24 or number == count:
            label = f"{at:g} s" if step >= 1 else f"{at:.{_digits(step)}f} s"
            yield _text(x, 104, label, "soft", "start" if number == 0 else "middle")


def _step(seconds: float) -> float:
    for power in range(-4, 5):
        for factor in (1, 2, 5):
            if seconds / (factor * 10.0**power) <= 9:
                return factor * 10.0**power
    return 1e5


def _digits(step: float) -> int:
    return max(1, len(f"{step:g}".partition(".")[2]))


def _rhythm(report: Report, scale: _Scale, badges: dict[int, int]) -> Iterator[str]:
    """Draw each line of the log as a tick: work looks dense, a wait is a hole with a number."""
    y, height = 114, 22
    timeline = report.timeline
    yield _rect(
        scale.x(timeline.start),
        y,
        scale.x(timeline.end) - scale.x(timeline.start),
        height,
        "var(--track)",
        'rx="3"',
    )
    seen: set[float] = set()
    ticks: list[str] = []
    for line in timeline.lines:
        if line.seconds is None or not timeline.start <= line.seconds <= timeline.end:
            continue
        x = scale.x(line.seconds)
        if x not in seen:
            seen.add(x)
            ticks.append(f"M{x} {y + 3}v{height - 6}")
    if ticks:
        yield f'<path d="{"".join(ticks)}" stroke="var(--soft)" opacity="0.55" fill="none"/>'
    for finding in report.findings:
        if finding.kind not in ("silence", "group") or id(finding) not in badges:
            continue
        x, end = scale.x(finding.start), scale.x(finding.end)
        yield _titled(
            x,
            y,
            end - x,
            height,
            "var(--wait)",
            f"{finding.what}: {ms(finding.seconds)}",
            'opacity="0.28" rx="3"',
        )
        yield _rect(x, y + height - 3, end - x, 3, "var(--wait)", 'rx="1.5"')
        yield from _badge((x + end) / 2, y + height / 2 - 1, badges[id(finding)])


def _badge(x: float, y: float, number: int) -> Iterator[str]:
    ring = 'stroke="var(--paper)" stroke-width="1.5"'
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8.5" fill="var(--wait)" {ring}/>'
    yield _text(x, y + 3.5, str(number), "num")


def _bars(report: Report, badges: dict[int, int]) -> list[_Bar]:
    """Pick what is worth a row: what has a number, the chain, then the longest; by time."""
    timeline = report.timeline
    numbers = {(f.start, f.end): badges[id(f)] for f in report.findings if id(f) in badges}
    rows: list[_Bar] = []
    for call in timeline.initcalls:
        number = numbers.get((call.start, call.end), 0)
        if number or call.seconds >= timeline.least:
            rows.append(_Bar(call.name, call.start, call.end, "wait" if number else "call", number))
    for unit in timeline.units:
        if unit.end is None or unit.seconds < timeline.seconds * 0.004:
            continue
        number = numbers.get((unit.start, unit.end), 0)
        style = "wait" if number else "init" if unit.name in timeline.chain else "unit"
        rows.append(_Bar(unit.name, unit.start, unit.end, style, number))
    for name, start, end in timeline.host.stages if timeline.host else ():
        # The kernel's and systemd's are the ribbon's already.
        if name not in ("kernel", "systemd") and end > start:
            rows.append(_Bar(f"bugbox: {name}", start, end, "session", 0))
    rows.sort(key=lambda bar: (bar.badge == 0, bar.style == "unit", bar.start - bar.end))
    return sorted(rows[:_MOST_ROWS], key=lambda bar: (bar.start, bar.end))


def _bar(bar: _Bar, y: float, scale: _Scale) -> Iterator[str]:
    x, end = scale.x(bar.start), scale.x(bar.end)
    took = ms(bar.end - bar.start)
    yield _titled(x, y + 4, end - x, 14, f"var(--{bar.style})", f"{bar.name} {took}", 'rx="3"')
    if bar.badge and end - x >= 20:
        yield from _badge(x + 11, y + 11, bar.badge)
    label = f"{bar.name}  {took}"
    if bar.badge and end - x < 20:
        yield from _badge(end + 12, y + 11, bar.badge)
        end += 18
    if end + 8 + len(label) * _LETTER[11] <= _WIDTH - _EDGE:
        yield _text(end + 7, y + 15, label, "soft")
    else:
        yield _text(x - 7, y + 15, _fit(label, x - _EDGE, 11), "soft", "end")


def _end(timeline: Timeline, scale: _Scale, bottom: float) -> Iterator[str]:
    if timeline.host is None or timeline.host.ready is None:
        return
    x = scale.x(timeline.host.ready)
    yield _upright(x, 92, bottom, "var(--session)", 2)
    yield _text(x, bottom + 13, "ready", "soft", "end" if x > _WIDTH - 60 else "middle")


_KEY = {
    "init": "the end waited for it",
    "unit": "beside it",
    "call": "in the kernel",
    "wait": "worth a look",
}


def _key(bars: list[_Bar], bottom: float) -> Iterator[str]:
    x = float(_EDGE)
    for style, words in _KEY.items():
        if any(bar.style == style for bar in bars):
            yield _rect(x, bottom + 6, 12, 8, f"var(--{style})", 'rx="2"')
            yield _text(x + 17, bottom + 14, words, "soft")
            x += 34 + len(words) * _LETTER[11]


def _legend(number: int, finding: Finding, y: float, timeline: Timeline) -> Iterator[str]:
    yield from _badge(_EDGE + 8, y - 4, number)
    where = f"{ms(finding.seconds)} at {finding.start - timeline.start:.2f} s"
    yield _text(_EDGE + 26, y, _fit(f"{where}: {finding.what}", _WIDTH - 2 * _EDGE - 30, 12))
    advice = f"fix: {finding.rule.fix}" if finding.rule else finding.advice
    yield _text(_EDGE + 26, y + 16, _fit(advice, _WIDTH - 2 * _EDGE - 30, 11), "soft")
