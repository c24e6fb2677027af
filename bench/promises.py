# SPDX-License-Identifier: Apache-2.0
"""Which promise each race answers: who must beat whom, and what must not be exceeded. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.series import Ratio, Series, ratio

__all__ = ["LIMITS", "PROMISES", "Finding", "Limit", "Promise", "Verdict", "judge", "measure"]


@dataclass(frozen=True, slots=True)
class Promise:
    """`other` takes at least `least` times as long as `ours`; `aim` is what we want."""

    title: str
    ours: str
    other: str
    least: float
    aim: float


PROMISES = (
    Promise("cold boot to ready", "cold.to ready", "stock.to ready", 4.0, 8.0),
    Promise("cold boot with the small init", "tini.to ready", "systemd.to ready", 2.0, 3.0),
    Promise("a standby's claim", "standby.to ready", "docker.as typed", 10.0, 15.0),
    Promise("a clone, no standby left", "clone.to ready", "docker.as typed", 1.5, 4.0),
    Promise("`bugbox start` as typed", "standby.as typed", "docker.as typed", 1.0, 3.0),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A measure of ours that never is more than `most`, beside nobody's."""

    title: str
    series: str
    #: Which of its values counts: "p50", "p99", "max", or "p99/p50".
    of: str
    most: float
    unit: str


LIMITS = (
    Limit("a standby's claim, slowest over median", "standby.to ready", "p99/p50", 4.0, "x"),
    Limit("memory of an idle clone", "idle.memory of its own, PSS", "p50", 35.0, "MiB"),
    Limit("CPU of an idle machine", "idle.CPU", "p50", 0.7, "% of a core"),
    Limit("echo of a key beside busy machines", "active.a keystroke's echo", "p99", 200.0, "ms"),
    Limit("busy machines lost", "active.lost", "max", 0.0, ""),
    Limit("OOM kills meanwhile", "active.OOM kills", "max", 0.0, ""),
    Limit("starts at once that did not come", "burst.did not come", "max", 0.0, ""),
    Limit("left behind by starts at once", "burst.left behind", "max", 0.0, ""),
    Limit("left behind by rounds", "rounds.left behind", "max", 0.0, ""),
    Limit("an idle machine's pause for a fork", "fork.the original's pause", "max", 300.0, "ms"),
    Limit("a busy machine's pause for a fork", "busy.the original's pause", "max", 300.0, "ms"),
    Limit("the learner's pause for a check", "check.the learner's pause", "max", 300.0, "ms"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one run says of one limit."""

    limit: Limit
    value: float

    @property
    def kept(self) -> bool:
        """Whether it is not exceeded."""
        return self.value <= self.limit.most


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one run says of one promise."""

    promise: Promise
    ours: Series
    other: Series
    ratio: Ratio

    @property
    def kept(self) -> bool:
        """Whether the median of the rounds keeps it."""
        return self.ratio.p50 >= self.promise.least


def judge(series: Iterable[Series]) -> list[Verdict]:
    """Return a verdict for each promise whose two sides were both measured."""
    named: Mapping[str, Series] = {s.name: s for s in series if s.values}
    return [
        Verdict(
            p, named[p.ours], named[p.other], ratio(named[p.other].values, named[p.ours].values)
        )
        for p in PROMISES
        if p.ours in named and p.other in named
    ]


def measure(series: Iterable[Series]) -> list[Finding]:
    """Return a finding for each limit whose series was measured."""
    named = {s.name: s for s in series if s.values}
    return [
        Finding(each, _value(named[each.series], each.of))
        for each in LIMITS
        if each.series in named
    ]


def _value(series: Series, of: str) -> float:
    values = {"p50": series.p50, "p99": series.p99, "max": max(series.values)}
    return values["p99"] / values["p50"] if of == "p99/p50" else values[of]
