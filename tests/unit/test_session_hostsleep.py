# SPDX-License-Identifier: Apache-2.0
"""After the host slept, a clock that stood still meanwhile is put right, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from session_world import run, until, world

from bugbox.machine.lifeline.shell import Lifeline
from bugbox.session import hostsleep
from bugbox.session.hostsleep import before
from bugbox.session.manager import Manager

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.mark.parametrize(
    ("offset", "slept", "known", "expected"),
    [
        (-60 * SECOND, 60 * SECOND, None, 0),
        (-61 * SECOND, 60 * SECOND, None, 0),
        # It went on, as a clock of the host's own does.
        (0, 60 * SECOND, None, None),
        # An hour ahead on purpose, as was noted when it was paused; and when it was not.
        (HOUR - 60 * SECOND, 60 * SECOND, HOUR, HOUR),
        (HOUR - 60 * SECOND, 60 * SECOND, None, None),
        # The learner has put it right since.
        (-60 * SECOND, 60 * SECOND, HOUR, 0),
        # Wrong by something else altogether.
        (-200 * SECOND, 60 * SECOND, None, None),
    ],
)
def test_what_a_clock_was_before(
    offset: int, slept: int, known: int | None, expected: int | None
) -> None:
    assert before(offset, slept, known) == expected


def test_the_keeper_notices_and_sets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = 0
    told: list[int] = []

    async def offset(lifeline: Lifeline) -> int:
        return -slept

    async def set_clock(lifeline: Lifeline, offset_ns: int) -> None:
        told.append(offset_ns)

    monkeypatch.setattr(hostsleep, "_asleep_ns", lambda: slept)
    monkeypatch.setattr(hostsleep, "_EVERY", 0.05)
    monkeypatch.setattr(hostsleep, "clock_offset", offset)
    monkeypatch.setattr(hostsleep, "set_clock", set_clock)

    async def work() -> None:
        nonlocal slept
        async with Manager(made.home, replace(made.settings), lasting=True) as manager:
            await manager.answer("start", {"puzzle": str(made.puzzle)})
            assert told == []
            slept = 90 * SECOND
            await until(lambda: told == [0])
            await manager.answer("stop", {"all": True})

    with world(tmp_path) as made:
        made.wire()
        run(work)
