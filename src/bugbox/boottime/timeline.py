# SPDX-License-Identifier: Apache-2.0
"""One boot on one clock: the VMM's start, the kernel, the root, the init, each unit, ready.

The clock is the kernel log's, in seconds; what happened before it started is negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Literal

from bugbox.boottime.initcall import Initcall, collect, is_noise
from bugbox.boottime.kmsg import Line, last_boot, parse
from bugbox.boottime.systemd import Startup, Unit, critical, from_log

__all__ = ["Gap", "Host", "Mark", "Phase", "PhaseName", "Timeline", "build"]

PhaseName = Literal["vmm", "kernel", "initramfs", "init", "session"]

#: Lines written by a timer or a thread of their own: what they follow is not what they waited for.
_ASYNC = re.compile(
    r"tsc: Refined TSC|clocksource: tsc: mask|clocksource: Switched to clocksource tsc$"
    r"|random: crng init|audit: type=|hrtimer: interrupt took|systemd-journald\["
    r"|clocksource: timekeeping watchdog"
)
_RUN = re.compile(r"Run (\S+) as init process")
_HANDED_OVER = re.compile(r"systemd\[1\]: |bugbox: run |.*\bINIT: version ")
#: A gap is worth a line from here on: a fiftieth of the boot, and never less than this.
_LEAST = 0.05
_SHARE = 0.02
#: Two clocks of one boot are not further apart than this.
_MOST_SHIFT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the boot; they follow one another."""

    name: PhaseName
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A moment with a name."""

    name: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time in which the log is silent."""

    start: float
    end: float
    before: Line
    after: Line
    #: The lines around it, for rules that need more than the two.
    near: tuple[Line, ...] = field(default=(), repr=False)

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the host saw, on the guest's clock."""

    #: The VMM's process began.
    started: float
    #: The learner could have worked.
    ready: float | None = None
    #: The host's own stages: name, start, end.
    stages: tuple[tuple[str, float, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One boot."""

    start: float
    end: float
    phases: tuple[Phase, ...]
    marks: tuple[Mark, ...]
    units: tuple[Unit, ...]
    initcalls: tuple[Initcall, ...]
    gaps: tuple[Gap, ...]
    #: Names of the units that the end waited for, first to last.
    chain: tuple[str, ...]
    lines: tuple[Line, ...] = field(repr=False)
    #: How many boots the log holds; this is the last.
    boots: int
    host: Host | None = None

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return self.end - self.start

    @property
    def least(self) -> float:
        """The shortest time that is worth a word."""
        return max(_LEAST, _SHARE * self.seconds)

    def phase_at(self, seconds: float) -> PhaseName:
        """Return the phase that a moment is in."""
        inside = [p for p in self.phases if p.start <= seconds]
        return inside[-1].name if inside else "kernel"


def build(
    log: str,
    *,
    startup: Startup | None = None,
    milestones: Mapping[str, float] | None = None,
    host: Host | None = None,
) -> Timeline:
    """Put a log, and what else is known of the same boot, on one clock.

    `startup` is better than what the log says of units, where systemd was asked. `milestones` are
    the lifeline's, in seconds.
    """
    lines, boots = last_boot(parse(log))
    stamped = [line for line in lines if line.seconds is not None]
    told = from_log(lines)
    shift = 0.0 if startup is None else _shift(told, startup)
    startup = told if startup is None else _shifted(startup, shift)
    known = {name: at + shift for name, at in (milestones or {}).items() if at >= 0}
    host = _shifted_host(host, shift) if host else None
    ends = [line.seconds or 0.0 for line in stamped] if host is None else []
    ends += [unit.end for unit in startup.units if unit.end is not None] if startup is told else []
    finished = [t for t in (host.ready if host else None, startup.finished) if t is not None]
    # Where nobody says "ready" the boot ends with systemd's word, or else with the last line.
    end = max(finished) if finished else max([*ends, *known.values()], default=0.0)
    first = stamped[0].seconds if stamped else 0.0
    start = host.started if host else (0.0 if (first or 0.0) < 0.1 else first or 0.0)
    phases = _phases(stamped, startup, known, start, end, host)
    return Timeline(
        start=start,
        end=max(end, start),
        phases=phases,
        marks=_marks(stamped, startup, known, host),
        units=tuple(unit for unit in startup.units if unit.start <= end),
        initcalls=tuple(collect(lines)),
        gaps=tuple(_gaps(stamped, end)),
        chain=critical(startup),
        lines=tuple(lines),
        boots=boots,
        host=host,
    )


def _shift(told: Startup, startup: Startup) -> float:
    """Return how much the log's clock shows more than systemd's.

    The log's runs from the moment the processor's clock is known, systemd's and the lifeline's from
    when the kernel keeps time: tens of milliseconds later, and the same ones for all of a boot.
    """
    logged = {unit.name: unit.start for unit in told.units}
    apart = [logged[u.name] - u.start for u in startup.units if u.name in logged]
    found = median(apart) if apart else 0.0
    return found if abs(found) < _MOST_SHIFT else 0.0


def _shifted(startup: Startup, by: float) -> Startup:
    units = tuple(
        replace(unit, start=unit.start + by, end=None if unit.end is None else unit.end + by)
        for unit in startup.units
    )
    moments = (startup.userspace, startup.finished)
    userspace, finished = (None if at is None else at + by for at in moments)
    return Startup(units=units, userspace=userspace, finished=finished)


def _shifted_host(host: Host, by: float) -> Host:
    return Host(
        started=host.started + by,
        ready=None if host.ready is None else host.ready + by,
        stages=tuple((name, start + by, end + by) for name, start, end in host.stages),
    )


def _first(lines: Iterable[Line], pattern: re.Pattern[str]) -> float | None:
    return next((line.seconds for line in lines if pattern.match(line.text)), None)


def _phases(
    lines: list[Line],
    startup: Startup,
    known: Mapping[str, float],
    start: float,
    end: float,
    host: Host | None,
) -> tuple[Phase, ...]:
    runs = [line.seconds for line in lines if _RUN.match(line.text)]
    init = known.get("init", startup.userspace)
    if init is None:
        init = _first(lines, _HANDED_OVER)
    early = runs[0] if runs else known.get("lifeline")
    borders: list[tuple[PhaseName, float | None]] = [
        ("vmm", start if host else None),
        ("kernel", max(start, 0.0) if host else start),
        ("initramfs", early),
        ("init", init),
        ("session", startup.finished if host and host.ready is not None else None),
    ]
    found: list[Phase] = []
    points = [(name, at) for name, at in borders if at is not None and at <= end]
    for (name, at), (_, until) in zip(points, [*points[1:], ("session", end)], strict=True):
        if until > at:
            found.append(Phase(name=name, start=at, end=until))
    return tuple(found)


def _marks(
    lines: list[Line], startup: Startup, known: Mapping[str, float], host: Host | None
) -> tuple[Mark, ...]:
    found = dict(known)
    if host:
        found["VMM started"] = host.started
        if host.ready is not None:
            found["ready"] = host.ready
    if startup.finished is not None:
        found["systemd finished"] = startup.finished
    for line in lines:
        if line.text.startswith(("EXT4-fs", "XFS", "BTRFS")) and "mounted" in line.text:
            found.setdefault("root", line.seconds or 0.0)
    return tuple(Mark(name=n, at=at) for n, at in sorted(found.items(), key=lambda pair: pair[1]))


def _gaps(stamped: list[Line], end: float) -> list[Gap]:
    """Return every silence between two lines, the longest first."""
    lines = [line for line in stamped if not _ASYNC.match(line.text)]
    quiet = [line for line in lines if not is_noise(line)]
    # initcall_debug talks all the time; what it says has times of its own.
    lines = quiet if len(quiet) > 1 else lines
    found: list[Gap] = []
    latest = lines[0].seconds or 0.0 if lines else 0.0
    for number, (before, after) in enumerate(pairwise(lines)):
        at = after.seconds or 0.0
        if at > latest and latest < end:
            near = tuple(lines[max(0, number - 5) : number + 4])
            found.append(Gap(start=latest, end=at, before=before, after=after, near=near))
        latest = max(latest, at)
    found.sort(key=lambda gap: (-gap.seconds, gap.start))
    return found
