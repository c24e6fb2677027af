# SPDX-License-Identifier: Apache-2.0
"""Machines that nobody uses are paused, and whoever uses one lets it run on; fake machines."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import MANIFEST, PATIENCE, World, run, until, world

from bugbox.errors import MachineLost, StateError
from bugbox.machine.fake import FakeMachine
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.state import State
from bugbox.session.idle import Idleness
from bugbox.session.manager import Manager
from bugbox.session.session import Session
from bugbox.session.terminal import Ended, Login, Note, Output, Seat

IDLE = 0.5
HOUR_NS = 3600 * 10**9


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as it:
        it.wire()
        yield it


@asynccontextmanager
async def keeping(made: World, **settings: Any) -> AsyncIterator[Manager]:
    async with Manager(made.home, replace(made.settings, **settings), lasting=True) as manager:
        await manager.adopt_all()
        yield manager


async def started(made: World, manager: Manager) -> Session:
    answer = await manager.answer("start", {"puzzle": str(made.puzzle)})
    return (await manager.find(answer["id"])).session


async def resting(session: Session) -> None:
    await until(lambda: session.state == "paused" and session.resting)


async def at_a_prompt(session: Session) -> Seat:
    seat = Seat(session, Login(user="learner"), 24, 80)
    await seat.sit_down()
    return seat


async def reads(seat: Seat, wanted: bytes) -> None:
    seen = b""
    with anyio.fail_after(PATIENCE):
        while wanted not in seen:
            item = await seat.receive()
            assert not isinstance(item, Ended), seen
            seen += item.data if isinstance(item, Output) else b""


Use = Callable[[Manager, Session], Awaitable[object]]


async def shell(manager: Manager, session: Session) -> None:
    result = await (await session.lifeline()).run(["true"], timeout=20)
    assert result.status == 0


async def copy(manager: Manager, session: Session) -> None:
    await (await session.lifeline()).put("/copied", b"here")


async def sit_down(manager: Manager, session: Session) -> None:
    await at_a_prompt(session)


async def console(manager: Manager, session: Session) -> None:
    with pytest.raises(StateError, match="no console"):  # a fake has none to type on
        await session.type(b"x")


async def check(manager: Manager, session: Session) -> None:
    assert (await manager.answer("check", {}))["solved"] is False


async def resume(manager: Manager, session: Session) -> None:
    assert (await manager.answer("resume", {}))["state"] == "ready"


@pytest.mark.parametrize("use", [shell, copy, check, sit_down, console, resume])
def test_a_machine_nobody_uses_is_paused_until_somebody_does(made: World, use: Use) -> None:
    async def work() -> None:
        async with keeping(made, idle_pause=IDLE) as manager:
            session = await started(made, manager)
            await resting(session)
            (row,) = await manager.answer("ps", {})
            assert (row["state"], row["reason"]) == ("paused", "nobody has used it for 0.5 s")
            await use(manager, session)
            assert (session.state, session.resting) == ("ready", "")
            await resting(session)

    run(work)


def test_a_typed_key_wakes_it_and_the_terminal_is_told(made: World) -> None:
    async def work() -> None:
        async with keeping(made, idle_pause=IDLE) as manager:
            session = await started(made, manager)
            seat = await at_a_prompt(session)
            notes: list[Note] = []

            async def listen() -> None:
                async for note in seat.stands_still():
                    notes.append(note)

            async with anyio.create_task_group() as group:
                group.start_soon(listen)
                await resting(session)
                await seat.send(b"echo on-$((1+1))\n")
                await reads(seat, b"on-2")
                group.cancel_scope.cancel()
            assert [note.text for note in notes] == [
                "nobody has used it for 0.5 s: the machine stands still; any key lets it run on"
            ]

    run(work)


def test_a_forwarded_connection_that_was_open_wakes_it(made: World) -> None:
    """What is sent on a channel passes by no session: the lifeline itself says so."""

    async def work() -> None:
        async with keeping(made, idle_pause=IDLE) as manager:
            session = await started(made, manager)
            running = await (await session.lifeline()).terminal(argv=["cat"], login=False)
            await resting(session)
            await running.send(b"a byte\n")
            with anyio.fail_after(PATIENCE):
                assert await running.receive() is not None
            assert session.state == "ready"

    run(work)


def test_a_command_that_runs_keeps_it_awake(made: World) -> None:
    """Somebody waits for its end, however silent it is."""

    async def work() -> None:
        async with keeping(made, idle_pause=IDLE) as manager:
            session = await started(made, manager)
            lifeline = await session.lifeline()
            idleness = Idleness(session)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: lifeline.run(["sleep", "2"], timeout=60))
                await until(lambda: lifeline.working)
                while lifeline.working:
                    assert (idleness.look(), session.state) == (0.0, "ready")
                    await anyio.sleep(0.05)
            await resting(session)

    run(work)


def test_one_that_works_by_itself_is_not_idle(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            machine = session.machine
            assert machine is not None
            idleness = Idleness(session)
            idleness.look()
            await anyio.sleep(0.2)
            assert idleness.look() > 0.1
            # The VMM itself is kept busy, with pings, until it has had its share of a busy host.
            with anyio.fail_after(PATIENCE):
                while idleness.look() > 0.0:
                    with anyio.move_on_after(0.5):
                        while True:
                            await machine.lifeline.ping(20)

    run(work)


@pytest.mark.parametrize("manifest", ["session: {pausable: false}\n", ""])
def test_never_where_the_puzzle_forbids_it_or_the_setting_is_0(made: World, manifest: str) -> None:
    made.write("puzzle.yaml", MANIFEST + manifest)

    async def work() -> None:
        async with keeping(made, idle_pause=0.2 if manifest else 0.0) as manager:
            session = await started(made, manager)
            other = None
            if manifest:  # the same keeper pauses another one meanwhile
                made.write("puzzle.yaml", MANIFEST)
                other = await started(made, manager)
                await resting(other)
                with pytest.raises(StateError, match="may not be paused"):
                    await manager.answer("pause", {"id": session.id})
            else:
                await anyio.sleep(1.0)
            assert session.state == "ready"

    run(work)


def test_paused_by_hand_the_next_use_lets_it_run_on(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            assert await manager.answer("pause", {}) == {"id": session.id, "state": "paused"}
            assert await manager.answer("pause", {}) == {"id": session.id, "state": "paused"}
            (row,) = await manager.answer("ps", {})
            assert (row["state"], row["reason"]) == ("paused", "it was paused")
            await shell(manager, session)
            assert session.state == "ready"
            assert await manager.answer("stop", {"all": True}) == {"stopped": [session.id]}

    run(work)
    assert made.leftovers() == []


@pytest.mark.parametrize("save", [False, True])
def test_a_key_after_its_end_wakes_nothing(made: World, save: bool) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            seat = await at_a_prompt(session)
            await session.pause(save=save)
            await manager.answer("stop", {"all": True})
            with pytest.raises(MachineLost):
                await seat.send(b"anybody there?")
            with pytest.raises(StateError, match="is stopped"):
                await session.lifeline()
            assert made.leftovers() == []

    run(work)


def test_many_uses_at_once_wake_it_once(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            await session.pause()
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(shell, manager, session)
            assert (session.state, session.resting) == ("ready", "")

    run(work)


def test_the_clock_goes_on_from_now_as_wrong_as_it_was_meant_to_be(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest's clock is an hour ahead on purpose, and stands still while it is paused."""
    told: list[int] = []

    async def offset(lifeline: Lifeline) -> int:
        return HOUR_NS

    async def set_clock(lifeline: Lifeline, offset_ns: int) -> None:
        assert not lifeline.paused
        told.append(offset_ns)

    monkeypatch.setattr("bugbox.session.session.clock_offset", offset)
    monkeypatch.setattr("bugbox.session.session.set_clock", set_clock)

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            await session.pause()
            assert told == []
            await shell(manager, session)
            assert told == [HOUR_NS]
            await session.pause()
        # Another keeper finds it paused, and knows.
        async with keeping(made) as manager:
            session = (await manager.find(None)).session
            assert (session.state, session.resting) == ("paused", "it was paused")
            await shell(manager, session)
            assert told == [HOUR_NS, HOUR_NS]
            await manager.answer("stop", {"all": True})

    run(work)


def test_a_clock_that_stood_still_with_a_full_disk_gets_the_time_it_lost(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    told: list[int] = []

    async def clock(lifeline: Lifeline, nanoseconds: int | None = None) -> int:
        if nanoseconds is not None:
            told.append(nanoseconds - time.time_ns())
        return time.time_ns() + HOUR_NS - 300 * 10**9

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            assert isinstance(session.machine, FakeMachine)
            monkeypatch.setattr("bugbox.session.session._now_ns", lambda: now)
            session.machine._enter(State.STALLED)
            monkeypatch.setattr("bugbox.session.session._now_ns", lambda: now + 300 * 10**9)
            monkeypatch.setattr(Lifeline, "clock", clock)
            await session.resume()
            assert session.state == "ready"
            # An hour ahead on purpose, five minutes behind that since: an hour ahead again.
            assert told == [pytest.approx(HOUR_NS, abs=10**9)]
            # Only once.
            await session.resume()
            await shell(manager, session)
            assert len(told) == 1
            await manager.answer("stop", {"all": True})

    run(work)


def test_a_machine_whose_agent_does_not_answer_is_paused_all_the_same(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            assert session.machine is not None
            await session.machine.lifeline.aclose()
            await session.pause()
            assert session.record.clock_offset_ns is None
            await shell(manager, session)
            os.kill(session.machine.process.pid, 0)

    run(work)
