# SPDX-License-Identifier: Apache-2.0
"""Which promise each race answers: who must beat whom, how many times over. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.series import Ratio, Series, ratio

__all__ = ["PROMISES", "Promise", "Verdict", "judge"]


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
