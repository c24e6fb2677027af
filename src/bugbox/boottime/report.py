# SPDX-License-Identifier: Apache-2.0
"""A boot's report as values for JSON and as text for people, and two boots side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bugbox.boottime.advice import Finding, examine
from bugbox.boottime.timeline import PhaseName, Timeline

__all__ = [
    "PHASES",
    "Report",
    "as_json",
    "as_text",
    "compare",
    "compare_text",
    "make",
    "ms",
    "notes",
]

#: What people call the phases.
PHASES: dict[PhaseName, str] = {
    "vmm": "host",
    "kernel": "kernel",
    "initramfs": "initramfs",
    "init": "services",
    "session": "hand-over",
}
_SHOWN = 10
_BESIDE = 4
_WIDTH = 96
#: Of so many lines at least one has a time, where the kernel was not told to be quiet.
_QUIET = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One boot with all that is to be said about it."""

    title: str
    timeline: Timeline
    findings: tuple[Finding, ...]


def make(title: str, timeline: Timeline) -> Report:
    """Examine a boot."""
    return Report(title=title, timeline=timeline, findings=tuple(examine(timeline)))


def ms(seconds: float) -> str:
    """Say a time in the unit people would take."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def as_json(report: Report) -> dict[str, Any]:
    """Return plain values: seconds on the kernel's clock."""
    timeline = report.timeline
    return {
        "title": report.title,
        "start": round(timeline.start, 6),
        "end": round(timeline.end, 6),
        "seconds": round(timeline.seconds, 6),
        "boots_in_log": timeline.boots,
        "phases": [
            {"name": p.name, "start": round(p.start, 6), "end": round(p.end, 6)}
            for p in timeline.phases
        ],
        "marks": [{"name": m.name, "at": round(m.at, 6)} for m in timeline.marks],
        "critical_chain": list(timeline.chain),
        "units": [
            {"name": u.name, "start": u.start, "end": u.end, "failed": u.failed}
            for u in timeline.units
        ],
        "findings": [_finding_json(finding) for finding in report.findings],
        "notes": notes(timeline),
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    rule = finding.rule
    return {
        "kind": finding.kind,
        "phase": finding.phase,
        "start": round(finding.start, 6),
        "end": round(finding.end, 6),
        "seconds": round(finding.seconds, 6),
        "what": finding.what,
        "critical": finding.critical,
        "cause": rule.id if rule else None,
        "why": rule.cause if rule else None,
        "fix": rule.fix if rule else None,
        "price": rule.price if rule else None,
        "source": rule.source if rule else None,
        "advice": finding.advice or None,
        "lines": [{"number": number, "text": text} for number, text in finding.evidence],
    }


def notes(timeline: Timeline) -> list[str]:
    """Say what is true of the whole boot."""
    found: list[str] = []
    if timeline.boots > 1:
        found.append(f"the log holds {timeline.boots} boots; this is the last")
    command = next((x.text for x in timeline.lines if "ommand line: " in x.text), "")
    serial = "console=ttyS" in command and " quiet" not in command
    printed = sum(len(line.text) + 16 for line in timeline.lines if line.source == "kernel")
    if serial and printed > 4096:
        found.append(
            f"{printed} characters of the kernel's went over the serial console: "
            f"{printed / 11520:.1f} s on a real line of 115200 baud, an exit from the guest for "
            "each under a VMM. `quiet` keeps them in dmesg"
        )
    timed = sum(line.seconds is not None for line in timeline.lines)
    if timed == 0:
        found.append("no line has a time: boot with printk.time=1")
    elif not timeline.units and timed * _QUIET < len(timeline.lines):
        found.append(
            f"only {timed} of {len(timeline.lines)} lines carry a time, so most of the boot is not "
            "in this log: boot without `quiet` and loglevel=, or take dmesg's output"
        )
    return found


def as_text(report: Report) -> str:
    """Return the report for a terminal: phases, then each wait with its cause and fix."""
    timeline = report.timeline
    out = [f"{report.title}: {ms(timeline.seconds)}", ""]
    out += _bars(timeline)
    main = [f for f in report.findings if f.critical is not False]
    beside = [f for f in report.findings if f.critical is False]
    out.append("")
    if not report.findings and timeline.seconds:
        out.append(f"No wait of {ms(timeline.least)} or more.")
    for number, finding in enumerate(main[:_SHOWN], start=1):
        out += _finding_lines(number, finding, timeline)
    if len(main) > _SHOWN:
        rest = main[_SHOWN:]
        out.append(
            f"and {len(rest)} more of {ms(max(f.seconds for f in rest))} or less (--json has all)"
        )
    if beside:
        named = ", ".join(f"{f.what} {ms(f.seconds)}" for f in beside[:_BESIDE])
        more = f", and {len(beside) - _BESIDE} more" if len(beside) > _BESIDE else ""
        out += ["", *textwrap.wrap(f"Beside these, nobody waited for: {named}{more}", _WIDTH)]
    if timeline.chain and any(unit.seconds for unit in timeline.units):
        out += ["", "The chain of units, each waiting for the one before:", *_chain(timeline)]
    for note in notes(timeline):
        out += ["", *textwrap.wrap(f"Note: {note}", _WIDTH)]
    return "\n".join(out) + "\n"


def _bars(timeline: Timeline) -> Iterator[str]:
    width = 44
    for phase in timeline.phases:
        took = phase.end - phase.start
        full = round(width * took / timeline.seconds) if timeline.seconds else 0
        yield f"  {PHASES[phase.name]:<10} {ms(took):>8}  {'█' * full or '▏'}"


def _finding_lines(number: int, finding: Finding, timeline: Timeline) -> list[str]:
    head = f"{number:>2}. {ms(finding.seconds):>7} at {finding.start - timeline.start:.3f} s, "
    lines = textwrap.wrap(
        head + f"{PHASES[finding.phase]}: {finding.what}", _WIDTH, subsequent_indent=" " * 12
    )
    words = [(f"line {at}", text) for at, text in finding.evidence]
    rule = finding.rule
    if rule:
        words += [
            ("why", rule.cause),
            ("fix", rule.fix),
            ("price", rule.price),
            ("see", rule.source),
        ]
    elif finding.advice:
        words.append(("next", finding.advice))
    for label, text in words:
        body = text[: 2 * _WIDTH] if label.startswith("line") else text
        indent = f"      {label:<9} "
        lines += textwrap.wrap(
            body, _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        ) or [indent]
    return [*lines, ""]


def _chain(timeline: Timeline) -> Iterator[str]:
    units = {unit.name: unit for unit in timeline.units}
    for name in timeline.chain:
        unit = units[name]
        if not unit.seconds and name != timeline.chain[-1]:
            continue
        took = f"+{ms(unit.seconds)}" if unit.seconds else ""
        yield f"  {unit.start - timeline.start:>8.3f} s {took:>9}  {name}"


def compare(first: Report, second: Report) -> dict[str, Any]:
    """Say what the second boot does faster or slower than the first."""
    a, b = first.timeline, second.timeline
    phases = {
        name: (_phase(a, name), _phase(b, name))
        for name in PHASES
        if _phase(a, name) or _phase(b, name)
    }
    took_a = {u.name: u.seconds for u in a.units} | {c.name: c.seconds for c in a.initcalls}
    took_b = {u.name: u.seconds for u in b.units} | {c.name: c.seconds for c in b.initcalls}
    least = max(a.least, b.least) / 2
    moved = sorted(
        ((n, took_a.get(n), took_b.get(n)) for n in took_a.keys() | took_b.keys()),
        key=lambda row: (-abs((row[2] or 0.0) - (row[1] or 0.0)), row[0]),
    )
    causes_a = {f.rule.id for f in first.findings if f.rule}
    causes_b = {f.rule.id for f in second.findings if f.rule}
    return {
        "a": {"title": first.title, "seconds": round(a.seconds, 6)},
        "b": {"title": second.title, "seconds": round(b.seconds, 6)},
        "ratio": round(b.seconds / a.seconds, 4) if a.seconds else None,
        "phases": [
            {"name": name, "a": round(x, 6), "b": round(y, 6)} for name, (x, y) in phases.items()
        ],
        "changes": [
            {"name": n, "a": x, "b": y}
            for n, x, y in moved
            if abs((y or 0.0) - (x or 0.0)) >= least
        ],
        "causes_gone": sorted(causes_a - causes_b),
        "causes_new": sorted(causes_b - causes_a),
    }


def _phase(timeline: Timeline, name: str) -> float:
    return sum(phase.end - phase.start for phase in timeline.phases if phase.name == name)


def compare_text(difference: dict[str, Any]) -> str:
    """Return `compare`'s answer as a table for a terminal."""
    a, b = difference["a"], difference["b"]
    ratio = difference["ratio"]
    out = [f"A  {a['title']}: {ms(a['seconds'])}", f"B  {b['title']}: {ms(b['seconds'])}"]
    if ratio is not None:
        out[-1] += f", {ratio:.2f} of A"
    out += ["", f"  {'':<34} {'A':>9} {'B':>9} {'B - A':>10}"]
    rows = [(PHASES[p["name"]], p["a"], p["b"]) for p in difference["phases"]]
    out += [_row(*row) for row in rows]
    if difference["changes"]:
        out.append("")
    out += [_row(c["name"], c["a"], c["b"]) for c in difference["changes"][:20]]
    for key, word in (("causes_gone", "gone in B"), ("causes_new", "new in B")):
        if difference[key]:
            out += ["", f"{word}: {', '.join(difference[key])}"]
    return "\n".join(out) + "\n"


def _row(name: str, a: float | None, b: float | None) -> str:
    change = (b or 0.0) - (a or 0.0)
    shown = [ms(x) if x is not None else "-" for x in (a, b)]
    sign = "+" if change >= 0 else "-"
    return f"  {name[:34]:<34} {shown[0]:>9} {shown[1]:>9} {sign + ms(abs(change)):>10}"
