# SPDX-License-Identifier: Apache-2.0
"""Help, one step at a time.

The gates of a hint (`not_before`, `not_before_checks`) only inform on one's own machine: a hint
asked for by its number, or with `--now`, is always given. The bare "next hint" says how long its
author would still wait, and gives no text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bugbox.errors import NotFound
from bugbox.puzzle.definition import HintText, Puzzle
from bugbox.puzzle.variants import fill

__all__ = ["Hint", "every_hint", "give", "next_hint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One step of help, as given to a learner. Markdown, unescaped: markdown.render prints it."""

    #: From 1.
    n: int
    of: int
    title: str
    #: None: held back, see `next_in_s`.
    text: str | None
    cost: int
    #: Seconds until the next thing to be had is meant to be had (this hint when it is held back,
    #: else the one after it); 0: at once; None: no more hints, or a wait for checks and not time.
    next_in_s: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the shape that `hint --json` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    elapsed_s: float
    failed_checks: int


def give(
    puzzle: Puzzle,
    n: int,
    *,
    elapsed_s: float = 0.0,
    failed_checks: int = 0,
    bound: bool = False,
    values: Mapping[str, str] | None = None,
) -> Hint:
    """Give hint `n`, counted from 1, whatever its gates say; NotFound when there is none.

    Where the learner is `bound` to them, it is held back.
    """
    attempt = _Attempt(elapsed_s=elapsed_s, failed_checks=failed_checks)
    early = bound and 1 <= n <= len(puzzle.hints) and _wait(puzzle.hints[n - 1], attempt) != 0
    return _hint(puzzle, n, attempt, values or {}, held_back=early)


def next_hint(
    puzzle: Puzzle,
    given: int,
    *,
    now: bool = False,
    elapsed_s: float = 0.0,
    failed_checks: int = 0,
    bound: bool = False,
    values: Mapping[str, str] | None = None,
) -> Hint:
    """Give the hint after the first `given` ones; without `now` its gates hold it back.

    After the last one, the last is given again.
    """
    attempt = _Attempt(elapsed_s=elapsed_s, failed_checks=failed_checks)
    repeat = bool(puzzle.hints) and given >= len(puzzle.hints)
    n = len(puzzle.hints) if repeat else given + 1
    early = (
        (bound or not (now or repeat))
        and n <= len(puzzle.hints)
        and _wait(puzzle.hints[n - 1], attempt) != 0
    )
    return _hint(puzzle, n, attempt, values or {}, held_back=early)


def every_hint(
    puzzle: Puzzle,
    *,
    elapsed_s: float = 0.0,
    failed_checks: int = 0,
    bound: bool = False,
    values: Mapping[str, str] | None = None,
) -> list[Hint]:
    """Give them all, or those that a `bound` learner may have."""
    attempt = _Attempt(elapsed_s=elapsed_s, failed_checks=failed_checks)
    return [
        _hint(puzzle, n, attempt, values or {}, held_back=bound and _wait(hint, attempt) != 0)
        for n, hint in enumerate(puzzle.hints, 1)
    ]


def _hint(
    puzzle: Puzzle, n: int, attempt: _Attempt, values: Mapping[str, str], *, held_back: bool
) -> Hint:
    hints = puzzle.hints
    if not hints:
        raise NotFound(f"{puzzle.name} has no hints")
    if not 1 <= n <= len(hints):
        raise NotFound(f"{puzzle.name} has no hint {n}", hint=f"its hints are 1 to {len(hints)}")
    found = hints[n - 1]
    awaited = found if held_back else (hints[n] if n < len(hints) else None)
    return Hint(
        n=n,
        of=len(hints),
        title=fill(found.title, values),
        text=None if held_back else fill(found.text, values),
        cost=found.cost,
        next_in_s=None if awaited is None else _wait(awaited, attempt),
    )


def _wait(hint: HintText, attempt: _Attempt) -> int | None:
    """Seconds until the hint is meant to be given; None: it waits for failed checks."""
    left = max(0, math.ceil(hint.not_before_s - attempt.elapsed_s))
    if attempt.failed_checks < hint.not_before_checks:
        return None
    return left
