# SPDX-License-Identifier: Apache-2.0
"""Find the waits of a boot and say why each happened, or how to find out.

A wait is a silence of the log, an initcall or a unit that took long. A cause is named only where a
rule of the table fits; otherwise the finding says what was going on and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bugbox.boottime.initcall import Initcall
from bugbox.boottime.kmsg import Line
from bugbox.boottime.rule import Rule, rules
from bugbox.boottime.systemd import Unit
from bugbox.boottime.timeline import Gap, PhaseName, Timeline

__all__ = ["Finding", "examine"]

#: So much of a silence lies inside something that was timed: they are one wait.
_SAME = 0.7
#: Units whose end comes with others': their time is not their own.
_PASSIVE = (".target", ".slice", ".scope", ".device", ".socket", ".timer", ".path")
_MOST = 40
#: A guest may claim any number of units and initcalls.
_MOST_TIMED = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One wait: where, how long, why."""

    kind: Literal["silence", "group", "initcall", "unit"]
    start: float
    end: float
    #: The time that was lost: of a group, less than from start to end.
    seconds: float
    phase: PhaseName
    #: What took the time, as far as the log tells.
    what: str
    #: The initcall, the probed device or the unit; empty for a silence.
    name: str = ""
    #: The module an initcall is in.
    module: str = ""
    #: Lines of the log that show it: (number, text).
    evidence: tuple[tuple[int, str], ...] = ()
    #: None: unknown; `advice` then says how to find out.
    rule: Rule | None = None
    advice: str = ""
    #: The end of the boot waited for this unit; None: not a unit.
    critical: bool | None = None


def examine(timeline: Timeline) -> list[Finding]:
    """Return every wait worth a word, the longest first; those beside the chain of units last."""
    groups, grouped = _groups(timeline)
    calls = [_of_call(call, timeline) for call in _worthy_calls(timeline)]
    units = [_of_unit(unit, timeline) for unit in _worthy_units(timeline)]
    silences = [
        _of_gap(gap, timeline)
        for gap in timeline.gaps
        if gap.seconds >= timeline.least
        and gap.after.number not in grouped
        and not any(_covers(found, gap) for found in [*calls, *units])
    ]
    found = [*groups, *calls, *units, *silences]
    # What the end did not wait for comes last, however long it took.
    return sorted(found, key=lambda f: (f.critical is False, -f.seconds, f.start))[:_MOST]


# Silences


def _of_gap(gap: Gap, timeline: Timeline) -> Finding:
    rule = next((r for r in rules() if _fits_gap(r, gap)), None)
    phase = timeline.phase_at(gap.start)
    inside = sorted(
        (u for u in timeline.units if u.start < gap.end and (u.end is None or u.end > gap.start)),
        key=lambda unit: unit.start,
    )
    busy = [u.name for u in inside if u.seconds or u.end is None]
    what = rule.title if rule else "nothing was logged"
    if rule is None and busy:
        verb = "was" if len(busy) == 1 else "were"
        what = f"nothing was logged while {_listed(busy)} {verb} starting"
    return Finding(
        kind="silence",
        start=gap.start,
        end=gap.end,
        seconds=gap.seconds,
        phase=phase,
        what=what,
        evidence=_evidence(gap.before, gap.after),
        rule=rule,
        advice="" if rule else _how(phase, gap, timeline),
    )


def _fits_gap(rule: Rule, gap: Gap) -> bool:
    patterns = rule.patterns
    if not patterns.keys() & {"before", "after"} or not rule.least <= gap.seconds <= rule.most:
        return False
    if "before" in patterns and not patterns["before"].search(gap.before.text):
        return False
    if "after" in patterns and not patterns["after"].search(gap.after.text):
        return False
    return "near" not in patterns or any(patterns["near"].search(x.text) for x in gap.near)


def _groups(timeline: Timeline) -> tuple[list[Finding], set[int]]:
    """Add up the silences before lines that a rule groups; the lines that were counted."""
    gaps = {gap.after.number: gap for gap in timeline.gaps}
    found: list[Finding] = []
    used: set[int] = set()
    for rule in rules():
        pattern = rule.patterns.get("group")
        if pattern is None:
            continue
        lines = [
            line for line in timeline.lines if line.number in gaps and pattern.search(line.text)
        ]
        total = sum(gaps[line.number].seconds for line in lines)
        if not lines or total < max(timeline.least, rule.least):
            continue
        used |= {line.number for line in lines}
        first = gaps[lines[0].number]
        found.append(
            Finding(
                kind="group",
                start=first.start,
                end=gaps[lines[-1].number].end,
                seconds=total,
                phase=timeline.phase_at(first.start),
                what=f"{rule.title} ({len(lines)} line{'s' if len(lines) != 1 else ''})",
                evidence=_evidence(lines[0], lines[-1]),
                rule=rule,
            )
        )
    return found, used


def _covers(found: Finding, gap: Gap) -> bool:
    shared = min(found.end, gap.end) - max(found.start, gap.start)
    return shared >= _SAME * gap.seconds


# What was timed


def _worthy_calls(timeline: Timeline) -> list[Initcall]:
    """Return long initcalls and probes; one inside another long one is that one's explanation."""
    long = [call for call in timeline.initcalls if call.seconds >= timeline.least]
    long.sort(key=lambda call: (call.kind != "initcall", -call.seconds))
    kept: list[Initcall] = []
    for call in long[:_MOST_TIMED]:
        if not any(k.start - 1e-3 <= call.start and call.end <= k.end + 1e-3 for k in kept):
            kept.append(call)
    return kept


def _of_call(call: Initcall, timeline: Timeline) -> Finding:
    names = (call.name, call.module)
    rule = next(
        (
            r
            for r in rules()
            if (p := r.patterns.get("initcall")) and any(n and p.search(n) for n in names)
        ),
        None,
    )
    inside = [c for c in timeline.initcalls if c.kind == "probe" and c is not call]
    inside = [c for c in inside if call.start <= c.start and c.end <= call.end]
    probed = max(inside, key=lambda c: c.seconds, default=None)
    where = f" of module {call.module}" if call.module else ""
    what = f"{call.name}{where}" if call.kind == "initcall" else f"the probe of {call.name}"
    if probed and probed.seconds >= _SAME * call.seconds:
        what += f", mostly the probe of {probed.name}"
    lines = [
        x for x in timeline.lines if x.seconds is not None and call.start <= x.seconds <= call.end
    ]
    return Finding(
        kind="initcall",
        start=call.start,
        end=call.end,
        seconds=call.seconds,
        phase=timeline.phase_at(call.start),
        what=what,
        name=call.name if call.kind == "initcall" else "",
        module=call.module,
        evidence=_evidence(*lines[-1:]),
        rule=rule,
        advice="" if rule else _about_call(call),
    )


def _about_call(call: Initcall) -> str:
    if call.module:
        return (
            f"this module's start function waits: read {call.name} in its source. Not needed: "
            f"kernel argument module_blacklist={call.module}. Needed: load it after the boot"
        )
    return (
        f"built in: read {call.name} in the kernel's source. Not needed: kernel argument "
        f"initcall_blacklist={call.name}, then an option that leaves it out"
    )


def _worthy_units(timeline: Timeline) -> list[Unit]:
    long = [
        unit
        for unit in timeline.units
        if unit.seconds >= timeline.least
        and (not unit.name.endswith(_PASSIVE) or _unit_rule(unit) is not None)
    ]
    return sorted(long, key=lambda unit: -unit.seconds)[:_MOST_TIMED]


def _unit_rule(unit: Unit) -> Rule | None:
    for rule in rules():
        pattern = rule.patterns.get("unit")
        if pattern and pattern.search(unit.name) and unit.seconds >= rule.least:
            return rule
    return None


def _of_unit(unit: Unit, timeline: Timeline) -> Finding:
    rule = _unit_rule(unit)
    said = [line for line in timeline.lines if unit.name in line.text and line.seconds is not None]
    return Finding(
        kind="unit",
        start=unit.start,
        end=unit.end or unit.start,
        seconds=unit.seconds,
        phase=timeline.phase_at(unit.start),
        what=f"{unit.name}{' (failed)' if unit.failed else ''}",
        name=unit.name,
        evidence=_evidence(*said[:1], *said[-1:]) if len(said) > 1 else _evidence(*said),
        rule=rule,
        advice="" if rule else _about_unit(unit),
        critical=unit.name in timeline.chain,
    )


def _about_unit(unit: Unit) -> str:
    if unit.name.endswith((".mount", ".swap", ".automount")):
        return f"systemctl status {unit.name}; is the device slow, or is it waited for?"
    return (
        f"journalctl -b -o short-monotonic -u {unit.name} tells what it did when; is it needed? "
        f"systemctl list-dependencies --reverse {unit.name}"
    )


# How to find out


def _how(phase: PhaseName, gap: Gap, timeline: Timeline) -> str:
    if phase == "init":
        return "unknown. systemd.log_level=debug systemd.log_target=kmsg tells what systemd does"
    if phase == "initramfs":
        return "unknown. The initramfs is at work: rd.debug (ours: bugbox.debug) makes it talk"
    if not timeline.initcalls:
        return (
            "unknown; the line before it is only whoever spoke last. Boot once with initcall_debug "
            "loglevel=8: the kernel then names the function it was in"
        )
    inside = [c for c in timeline.initcalls if c.start < gap.end and c.end > gap.start]
    if inside:
        longest = max(inside, key=lambda call: call.seconds)
        took = f"{longest.name} the longest ({longest.seconds:.3f} s)"
        return f"unknown. {len(inside)} initcalls ran in it, {took}"
    return (
        "unknown, and no initcall ran in it: it is before or between them (memory, clocks, "
        "processors, unpacking). Kernel arguments ftrace=function_graph ftrace_graph_max_depth=2 "
        "show the functions"
    )


def _listed(names: Iterable[str], most: int = 3) -> str:
    all_ = [*names]
    shown = ", ".join(all_[:most])
    return shown if len(all_) <= most else f"{shown} and {len(all_) - most} more"


def _evidence(*lines: Line) -> tuple[tuple[int, str], ...]:
    return tuple((line.number, line.text[:200]) for line in lines)
