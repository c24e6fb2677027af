# SPDX-License-Identifier: Apache-2.0
"""When each unit started and was there: from systemd's lines in a log and what its tools print.

`from_log` reads "systemd[1]: Starting x.service - ..." lines; `from_show` what `systemctl show`
says of every unit; `from_blame`, `from_chain` and `from_plot` the output of `systemd-analyze`, as
somebody sent it to us. All times are seconds of the guest's monotonic clock, the kernel log's too.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bugbox.boottime.kmsg import Line

__all__ = [
    "Startup",
    "Unit",
    "critical",
    "from_blame",
    "from_chain",
    "from_log",
    "from_plot",
    "from_show",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit's way up."""

    name: str
    #: When it began to start.
    start: float
    #: When it was active; None: it never said so.
    end: float | None
    failed: bool = False
    after: frozenset[str] = frozenset()

    @property
    def seconds(self) -> float:
        """How long it took to become active."""
        return 0.0 if self.end is None else max(0.0, self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What systemd says of the whole boot; a time it does not know is None."""

    units: tuple[Unit, ...] = ()
    #: systemd itself began to run.
    userspace: float | None = None
    #: The default target was reached.
    finished: float | None = None


_UNIT = (
    r"([\w:.\\@-]+\.(?:service|socket|target|mount|automount|swap|path|timer|device|slice|scope))"
)
_BEGINS = re.compile(
    rf"systemd\[1\]: (?:Starting|Mounting|Activating swap|Expecting device) {_UNIT}\b"
)
_ENDS = re.compile(
    r"systemd\[1\]: (?:Started|Finished|Mounted|Reached target|Listening on|Activated swap"
    rf"|Found device|Created slice|Set up automount) {_UNIT}\b"
)
_FAILS = re.compile(
    rf"systemd\[1\]: (?:Failed to (?:start|mount)|Timed out waiting for device) {_UNIT}\b"
)
_INIT = re.compile(
    r"systemd\[1\]: (?:Inserted module|systemd \d+|Detected (?:virtualization|architecture))"
)
_DONE = re.compile(r"systemd\[1\]: Startup finished in ")


def from_log(lines: Iterable[Line]) -> Startup:
    """Read systemd's own lines out of a log."""
    begun: dict[str, float] = {}
    units: dict[str, Unit] = {}
    userspace = finished = None
    for line in lines:
        at, text = line.seconds, line.text
        if at is None or not text.startswith("systemd[1]: "):
            continue
        if userspace is None and _INIT.match(text):
            userspace = at
        elif match := _BEGINS.match(text):
            begun.setdefault(match[1], at)
        elif match := _ENDS.match(text):
            units.setdefault(match[1], Unit(name=match[1], start=begun.get(match[1], at), end=at))
        elif match := _FAILS.match(text):
            start = begun.get(match[1], at)
            units.setdefault(match[1], Unit(name=match[1], start=start, end=at, failed=True))
        elif _DONE.match(text):
            finished = at
    for name in begun.keys() - units.keys():
        units[name] = Unit(name=name, start=begun[name], end=None)
    if finished is None:
        reached = [units[n].end for n in ("graphical.target", "multi-user.target") if n in units]
        finished = reached[0] if reached else None
    ordered = sorted(units.values(), key=lambda unit: (unit.start, unit.name))
    return Startup(units=tuple(ordered), userspace=userspace, finished=finished)


def from_show(text: str) -> Startup:
    """Read `systemctl show` of the manager and of all units: KEY=VALUE, a blank line between."""
    units: list[Unit] = []
    userspace = finished = None
    for block in re.split(r"\n\s*\n", text):
        facts = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "UserspaceTimestampMonotonic" in facts:
            userspace = _micro(facts["UserspaceTimestampMonotonic"])
            finished = _micro(facts.get("FinishTimestampMonotonic", ""))
        name = facts.get("Id", "")
        start = _micro(facts.get("InactiveExitTimestampMonotonic", ""))
        if not name or start is None:
            continue
        end = _micro(facts.get("ActiveEnterTimestampMonotonic", ""))
        # A oneshot that does not remain is never "active": it ended when it went inactive again.
        if end is None or end < start:
            end = _micro(facts.get("InactiveEnterTimestampMonotonic", ""))
        if end is not None and end < start:
            end = None
        units.append(
            Unit(
                name=name,
                start=start,
                end=end,
                failed=facts.get("ActiveState") == "failed",
                after=frozenset(facts.get("After", "").split()),
            )
        )
    units.sort(key=lambda unit: (unit.start, unit.name))
    return Startup(units=tuple(units), userspace=userspace, finished=finished)


def _micro(text: str) -> float | None:
    return (
        int(text) / 1e6
        if text.isascii() and text.isdigit() and 0 < len(text) < 16 and text != "0"
        else None
    )


_SPAN = re.compile(r"(?:(\d+)h ?)?(?:(\d+)min ?)?(?:([\d.]+)s)?(?: ?([\d.]+)ms)?(?: ?(\d+)us)?")


def _span(text: str) -> float | None:
    match = _SPAN.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    try:
        hours, minutes, seconds, milli, micro = (float(g or 0) for g in match.groups())
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds + milli / 1e3 + micro / 1e6


def from_blame(text: str) -> dict[str, float]:
    """Read `systemd-analyze blame`: each unit's own seconds."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        words = line.split()
        seconds = _span(" ".join(words[:-1])) if len(words) > 1 else None
        if seconds is not None:
            found[words[-1]] = seconds
    return found


_CHAIN = re.compile(rf"[^\w]*{_UNIT}(?: @([^+]+?))?(?: \+(\S.*?))?\s*")


def from_chain(text: str) -> tuple[Unit, ...]:
    """Read `systemd-analyze critical-chain`, the last unit first; times from systemd's start."""
    found: list[Unit] = []
    for line in text.splitlines():
        match = _CHAIN.fullmatch(line)
        at = _span(match[2]) if match and match[2] else None
        if match and at is not None:
            took = _span(match[3]) if match[3] else None
            found.append(Unit(name=match[1], start=at, end=at + (took or 0.0)))
    return tuple(found)


_BAR = re.compile(r'<rect class="(activating|active)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"')
_TEXT = re.compile(r'<text class="(?:left|right)" x="[\d.]+" y="([\d.]+)">([^<]*)</text>')
#: systemd-analyze draws a second as wide as this.
_PIXELS_A_SECOND = 100.0


def from_plot(svg: str) -> tuple[Unit, ...]:
    """Read the picture of `systemd-analyze plot`: text that names a bar stands in the bar's row."""
    bars: dict[int, tuple[float, float]] = {}
    for kind, x, y, width in _BAR.findall(svg):
        try:
            row, left, wide = round(float(y) / 20), float(x), float(width)
        except ValueError:
            continue
        if kind == "activating" or row not in bars:
            bars.setdefault(row, (left, left + (wide if kind == "activating" else 0.0)))
    found: list[Unit] = []
    for y, words in _TEXT.findall(svg):
        name = html.unescape(words).split(" (")[0].strip()
        try:
            row = round((float(y) - 14.0) / 20)
        except ValueError:
            continue
        if re.fullmatch(_UNIT, name) and row in bars:
            start, end = bars[row]
            found.append(
                Unit(name=name, start=start / _PIXELS_A_SECOND, end=end / _PIXELS_A_SECOND)
            )
    return tuple(found)


def critical(startup: Startup) -> tuple[str, ...]:
    """Return the chain of units that the end waited for, first to last.

    As systemd-analyze does it: of all that a unit is ordered after, the one that was there last. A
    log tells no orderings; there, whatever was up last before a unit began counts as awaited.
    """
    units = {unit.name: unit for unit in startup.units if unit.end is not None}
    known = any(unit.after for unit in units.values())
    goal = next((g for g in ("graphical.target", "multi-user.target") if g in units), "")
    if not goal and units:
        goal = max(units.values(), key=_end).name
    chain: list[str] = []
    while goal in units and goal not in chain:
        chain.append(goal)
        here = units[goal]
        names = here.after if known else units.keys()
        before = [units[n] for n in names if n in units and n not in chain]
        before = [u for u in before if _end(u) <= here.start + _CLOCK_STEP and _acts(u)]
        if not before:
            break
        goal = max(before, key=lambda unit: (_end(unit), unit.seconds, unit.name)).name
    return tuple(reversed(chain))


#: Two lines of one moment; systemd takes its times one after the other.
_CLOCK_STEP = 0.0005


def _end(unit: Unit) -> float:
    return unit.end or 0.0


def _acts(unit: Unit) -> bool:
    return not unit.name.endswith((".slice", ".device", ".scope"))
