# SPDX-License-Identifier: Apache-2.0
"""Run contestants in turn, so that a machine that slows down slows them all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from bench.series import Series

__all__ = ["Contestant", "Missing", "Values", "race"]

#: By measure, in ms unless its name ends with "[unit]"; many where one time gives many.
Values = dict[str, float | list[float]]


class Missing(Exception):
    """This contestant cannot run here; the message says what it lacks."""


class Contestant(Protocol):
    """Somebody who does the thing that is measured."""

    name: str
    title: str

    def __enter__(self) -> Self:
        """Set up, uncounted. Missing: it cannot run here."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything back."""

    def once(self) -> Mapping[str, float | list[float]]:
        """Do it once; return `Values`. What was not measured this time is left out."""


def race(contestants: Sequence[Contestant], rounds: int, *, warmup: int = 1) -> list[Series]:
    """Return a series for each contestant and measure; a missing one has a note and no values."""
    found: list[Series] = []
    with contextlib.ExitStack() as stack:
        running: list[tuple[Contestant, dict[str, Series]]] = []
        for contestant in contestants:
            _say(f"{contestant.title}: set-up")
            try:
                running.append((stack.enter_context(contestant), {}))
            except Missing as missing:
                _say(f"{contestant.title}: left out, {missing}")
                found.append(Series(contestant.name, contestant.title, "ms", note=str(missing)))
        for number in range(-warmup, rounds):
            for contestant, series in running:
                values = contestant.once()
                if number < 0:
                    continue
                for measure, value in values.items():
                    name = f"{contestant.name}.{measure}" if measure else contestant.name
                    title = f"{contestant.title}, {measure}" if measure else contestant.title
                    if measure not in series:
                        series[measure] = Series(*_named(name, title))
                    series[measure].values += value if isinstance(value, list) else [value]
                shown = ", ".join(f"{k or 'all'} {_shown(v)}" for k, v in values.items())
                _say(f"{number + 1}/{rounds} {contestant.title}: {shown}")
        for _, series in running:
            found.extend(series.values())
    return found


def _named(name: str, title: str) -> tuple[str, str, str]:
    """Take the unit off both: "idle.CPU [%]" is "idle.CPU" in %."""
    short, _, unit = name.partition(" [")
    return short, title.partition(" [")[0], unit.removesuffix("]") or "ms"


def _shown(value: float | list[float]) -> str:
    if isinstance(value, list):
        return f"{min(value):.4g} to {max(value):.4g}" if value else "none"
    return f"{value:.4g}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
