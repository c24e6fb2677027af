# SPDX-License-Identifier: Apache-2.0
"""Boots measured in turn, and what may be said of the difference: pure.

A middle value says little without its noise. Noise is half the distance between the quartiles:
what a busy host does to a few of the boots does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

__all__ = ["Lap", "beats", "noise", "summary"]

#: A difference must be this much larger than both noises to be believed.
_SURE = 2.0
#: And at least this share of the whole.
_LEAST = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One boot, in seconds."""

    #: The kernel's clock when the initramfs began to run.
    kernel: float
    #: The same when the root's init did.
    init: float
    #: From the request to a learner who could work.
    ready: float


def noise(values: Sequence[float]) -> float:
    """Return half the distance between the quartiles."""
    if len(values) < 2:
        return 0.0
    first, _, third = quantiles(values, n=4, method="inclusive")
    return (third - first) / 2


def beats(new: Sequence[float], old: Sequence[float]) -> bool:
    """Whether `new` is faster than `old` by more than chance.

    Both were measured in turn. The middle must be lower by more than the noise of both, and most of
    the pairs must agree.
    """
    gain = median(old) - median(new)
    pairs = sum(a < b for a, b in zip(new, old, strict=False))
    most = pairs >= 0.75 * min(len(new), len(old))
    return most and gain > max(_SURE * max(noise(new), noise(old)), _LEAST * median(old))


def summary(laps: Mapping[str, Sequence[Lap]]) -> list[dict[str, Any]]:
    """Return for each name the middle, the noise, and the share of the first name's middle."""
    rows: list[dict[str, Any]] = []
    for name, found in laps.items():
        row: dict[str, Any] = {"name": name, "boots": len(found)}
        for key in ("kernel", "init", "ready"):
            values = [float(getattr(lap, key)) for lap in found]
            middle = median(values)
            base = rows[0][key]["p50"] if rows else middle
            row[key] = {
                "p50": round(middle, 4),
                "noise": round(noise(values), 4),
                "ratio": round(middle / base, 4) if base else 1.0,
            }
        rows.append(row)
    return rows
