# SPDX-License-Identifier: Apache-2.0
"""Measured values and what may be said of them. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Ratio", "Series", "percentile", "ratio"]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of all values do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(slots=True)
class Series:
    """One contestant's values of one measure, in the order of the rounds."""

    name: str
    title: str
    unit: str
    values: list[float] = field(default_factory=list)
    #: Why there are none, or what a reader must know of them.
    note: str = ""

    @property
    def p50(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def p99(self) -> float:
        """With fewer than a hundred values, the largest."""
        return percentile(self.values, 99)

    @property
    def spread(self) -> float:
        """How noisy it was: half the distance between the quartiles, over the median."""
        if len(self.values) < 4 or self.p50 == 0:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4)
        return (high - low) / 2 / self.p50


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of one series to another, round by round: drift of the machine falls out."""

    p50: float
    low: float
    high: float


def ratio(over: Iterable[float], under: Iterable[float]) -> Ratio:
    """Return how many times `over` is `under`, from the pairs of each round."""
    pairs = [a / b for a, b in zip(over, under, strict=False) if b > 0]
    if not pairs:
        raise ValueError("no pair of values")
    return Ratio(statistics.median(pairs), min(pairs), max(pairs))
