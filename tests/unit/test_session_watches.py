# SPDX-License-Identifier: Apache-2.0
"""The loops that look after all sessions: no session holds up or ends what the others need."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from session_world import run, until

from bugbox.errors import StateError
from bugbox.machine.state import State
from bugbox.puzzle.manifest import CheckPolicy
from bugbox.session import auto_check, timekeeper
from bugbox.session.auto_check import check_by_itself
from bugbox.session.timekeeper import keep_time

Watch = Callable[[Callable[[], list[Any]]], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (auto_check, timekeeper):
        monkeypatch.setattr(module, "_EVERY", 0.005)
    monkeypatch.setattr(auto_check, "_APART", 0.01)


class One:
    """A session, or somebody's attempt at it, of which only what the loops look at is there."""

    def __init__(
        self, id: str, error: Exception | None = None, *, stuck: bool = False, slow: bool = False
    ) -> None:
        policy = CheckPolicy(trigger="auto", min_interval="1h" if slow else "0ms")  # type: ignore[arg-type]
        self.id = id
        self.session = self
        self.plan = SimpleNamespace(
            puzzle=SimpleNamespace(manifest=SimpleNamespace(check_policy=policy))
        )
        self.record = SimpleNamespace(solved_after=0.0)
        self.state = State.READY
        self.time_is_up = True
        self.error = error
        self.stuck = stuck
        self.count = 0

    @property
    def used(self) -> float:
        return time.monotonic()

    async def expire(self) -> None:
        self.count += 1
        if self.stuck:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error

    async def check(self, *, by_itself: bool) -> None:
        assert by_itself
        await self.expire()


@pytest.mark.parametrize("watch", [keep_time, check_by_itself])
def test_the_trouble_of_one_is_its_own(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    stuck, well = One("stuck", stuck=True), One("well")
    refused = One("refused", StateError("refused is being stopped"))
    broken = One("broken", RuntimeError("a bug of bugbox"))
    every = [stuck, broken, refused, well]

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, lambda: every)
            # Whoever failed is looked at again, and whoever stands behind them, too.
            await until(lambda: min(each.count for each in (broken, refused, well)) >= 3)
            group.cancel_scope.cancel()

    run(work)
    assert stuck.count == 1
    (line, *_) = (record for record in caplog.records if record.exc_info)
    assert line.getMessage().startswith("broken: ")


def test_who_is_gone_is_forgotten() -> None:
    """Another of its name begins anew: its first check waits for no pace of the one before."""
    one, other = One("one", slow=True), One("one", slow=True)
    present: list[Any] = [one]
    looks = 0

    def attempts() -> list[Any]:
        nonlocal looks
        looks += 1
        return present

    async def work() -> None:
        nonlocal looks
        async with anyio.create_task_group() as group:
            group.start_soon(check_by_itself, attempts)
            await until(lambda: one.count)
            present.clear()
            looks = 0
            await until(lambda: looks >= 2)
            present.append(other)
            await until(lambda: other.count)
            group.cancel_scope.cancel()

    run(work)
    assert one.count == 1
