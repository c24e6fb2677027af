# SPDX-License-Identifier: Apache-2.0
"""The work of `bugbox boot tune`: boot in turn with and without an argument, note the answer."""

from __future__ import annotations

import json as jsonlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bugbox.boottime.report import Report, ms
from bugbox.cli.ask import ask
from bugbox.cli.boot import of_session
from bugbox.cli.out import complain, document, say, table
from bugbox.cli.start import begin
from bugbox.errors import BootFailed, NotFound
from bugbox.image import store
from bugbox.paths import Home
from bugbox.session.tune import KNOWN, Candidate, Outcome, from_findings, judge, left, total
from bugbox.storage import file

__all__ = ["boot_once", "race", "run"]

_LOOK = ("initcall_debug", "log_buf_len=4M")
Boot = Callable[[tuple[str, ...]], float]


def run(
    image: str, kernel: str | None, rounds: int, minutes: int, *, again: bool, json: bool
) -> int:
    """Tune, until there is nothing left to try or the time is over."""
    home = Home()
    of = store.kernel_named(home, kernel) if kernel else store.find_kernel(home)
    if of is None:
        raise NotFound("no kernel is there yet", hint="bugbox image build")
    path = home.cache / f"tune-{image}-{of.digest[:16]}.json"
    learnt = {} if again else _read(path)
    until = time.monotonic() + 60 * minutes
    ask_for: dict[str, Any] = {"image": image, "kernel": of.release, "cold": True, "warm": False}
    complain("a boot with initcall_debug, to see what takes long")
    looked = _look(ask_for)
    candidates = [*from_findings(looked.findings), *KNOWN]
    todo = left(candidates, learnt)
    for candidate in todo:
        if time.monotonic() > until:
            complain(
                f"time is over; {len(left(candidates, learnt))} are left: the same command goes on"
            )
            break
        complain(f"{candidate.argument}: {candidate.why}")
        outcome = race(candidate.argument, rounds, lambda args: boot_once(ask_for, args))
        learnt[candidate.argument] = outcome
        _write(path, learnt)
    _tell(candidates, learnt, path, json=json)
    return 0


def race(argument: str, rounds: int, boot: Boot) -> Outcome:
    """Boot in turn without and with an argument; a machine that does not come up ends it."""
    without: list[float] = []
    with_it: list[float] = []
    for number in range(rounds):
        # The first of a pair finds warmer caches no more often than the second.
        order: Sequence[bool] = (False, True) if number % 2 == 0 else (True, False)
        for wanted in order:
            try:
                took = boot((argument,) if wanted else ())
            except BootFailed:
                if not wanted:
                    raise
                return judge(argument, without, None)
            (with_it if wanted else without).append(took)
    return judge(argument, without, with_it)


def boot_once(ask_for: dict[str, Any], args: tuple[str, ...]) -> float:
    """Boot a machine and end it; the seconds from the request to a learner who could work."""
    answer = begin({**ask_for, "kernel_args": [*args]})
    ask("stop", {"ids": [answer["id"]]})
    return float(answer["timings_ms"]["total"]) / 1000


def _look(ask_for: dict[str, Any]) -> Report:
    answer = begin({**ask_for, "kernel_args": [*_LOOK]})
    try:
        return of_session(str(answer["id"]))
    finally:
        ask("stop", {"ids": [answer["id"]]})


def _read(path: Path) -> dict[str, Outcome]:
    try:
        rows = jsonlib.loads(path.read_text())
        return {row["argument"]: Outcome(**row) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write(path: Path, learnt: dict[str, Outcome]) -> None:
    file.write(path, jsonlib.dumps([asdict(o) for o in learnt.values()], indent=2).encode())


def _tell(
    candidates: list[Candidate], learnt: dict[str, Outcome], path: Path, *, json: bool
) -> None:
    about = {candidate.argument: candidate for candidate in candidates}
    rows = sorted(learnt.values(), key=lambda o: (o.verdict != "helps", -o.gain))
    keep = total(rows)
    if json:
        found = [
            asdict(o) | {"price": about[o.argument].price if o.argument in about else None}
            for o in rows
        ]
        document({"keep": [*keep], "tried": found, "file": str(path)})
        return
    table(
        ["ARGUMENT", "VERDICT", "GAIN", "NOISE", "PRICE"],
        [
            [o.argument, o.verdict, ms(o.gain) if o.gain > 0 else "-", ms(o.noise),
             about[o.argument].price if o.argument in about else ""]
            for o in rows
        ],
    )  # fmt: skip
    say()
    say(f"worth its price? {' '.join(keep)}" if keep else "none helps beyond the noise")
