# SPDX-License-Identifier: Apache-2.0
"""A session's time and ways in, the pace of checks, and checks that nobody asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import MANIFEST, World, read_until, run, started, until, world
from test_session_idle import at_a_prompt, keeping, resting
from test_session_manager import touch

from bugbox.errors import GuestError, StateError
from bugbox.puzzle.session_keys import SessionLimits
from bugbox.session import auto_check
from bugbox.session.limits import ends_at, extended
from bugbox.session.record import Record
from bugbox.session.session import Session
from bugbox.session.terminal import Ended, Login, Note, Output, Seat

HOUR = 3600.0
TIME = "session: {duration: 1h, extend: 30m, deadline: 2h}\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as it:
        it.wire()
        yield it


def wishing(made: World, more: str) -> None:
    made.write("puzzle.yaml", MANIFEST + more)


def earlier(session: Session, seconds: float) -> None:
    """Let the session have begun so much earlier."""
    session.ledger.write(started=session.record.started - seconds)


async def over(session: Session) -> None:
    await until(lambda: session.state == "paused" and session.reason == "its time is over")


def test_when_time_is_over(made: World) -> None:
    def end(limits: SessionLimits, **more: float) -> tuple[float | None, float | None]:
        record = Record(id="x", puzzle="x", started=1000.0, **more)
        plan = made.plan(limits=limits)
        return ends_at(plan, record), extended(plan, record, 1100.0)

    assert end(SessionLimits()) == (None, None)
    assert end(SessionLimits(duration="1m")) == (1060.0, None)
    assert end(SessionLimits(deadline="2m")) == (1120.0, None)
    assert end(SessionLimits(duration="1m", extend="1m")) == (1060.0, 1160.0)
    assert end(SessionLimits(duration="1m", extend="1m"), until=1160.0) == (1160.0, 1160.0)
    some = SessionLimits(duration="1m", extend="1m", deadline="2m")
    assert end(some, until=1160.0) == (1120.0, 1120.0)
    assert end(SessionLimits(duration="1m", extend="1m", deadline="1m")) == (1060.0, None)


def test_a_machine_whose_time_is_over_stands_still_until_it_is_given_more(made: World) -> None:
    wishing(made, TIME)

    async def work() -> None:
        async with keeping(made, limits="on") as manager:
            session = await started(made, manager)
            await manager.answer("checkpoint", {})
            seat = await at_a_prompt(session)
            left = (await manager.answer("story", {}))["ends_in_s"]
            assert HOUR - 60 < left <= HOUR
            earlier(session, HOUR)
            await over(session)
            # Nobody wakes it: not by typing, not by a command or a check, not by a reset,
            # not by going back.
            await seat.send(b"anybody there?")
            for verb in ("check", "reset", "undo"):
                with pytest.raises(StateError, match="its time is over"):
                    await manager.answer(verb, {})
            with pytest.raises(StateError, match="its time is over"):
                await session.lifeline()
            assert session.state == "paused"
            assert (await manager.answer("resume", {}))["state"] == "ready"
            assert 29 * 60 < (await manager.answer("story", {}))["ends_in_s"] <= 30 * 60
            earlier(session, HOUR)
            await over(session)
            with pytest.raises(StateError, match="its time is over") as caught:
                await manager.answer("resume", {})
            assert caught.value.hint == f"bugbox stop {session.id} ends it"
        # The next keeper knows it too, and finds all of it there.
        async with keeping(made, limits="on") as manager:
            session = (await manager.find(None)).session
            with pytest.raises(StateError, match="its time is over"):
                await session.lifeline()
            assert session.state == "paused"
        async with keeping(made) as manager:
            session = (await manager.find(None)).session
            assert (await (await session.lifeline()).run(["true"], timeout=20)).status == 0

    run(work)


def test_time_also_passes_while_it_rests(made: World) -> None:
    wishing(made, TIME)

    async def work() -> None:
        async with keeping(made, limits="on") as manager:
            session = await started(made, manager)
            await manager.answer("pause", {})
            earlier(session, HOUR)
            await over(session)
            await manager.answer("resume", {})
            await manager.answer("pause", {"save": True})
            earlier(session, HOUR)
            with pytest.raises(StateError, match="its time is over"):
                await session.lifeline()

    run(work)


def test_limits_bind_nobody_on_their_own_machine(made: World) -> None:
    wishing(made, TIME.replace("}", ", idle: 1s}"))

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            earlier(session, 9 * HOUR)
            await anyio.sleep(1.5)
            assert session.state == "ready"
            assert (await manager.answer("story", {}))["ends_in_s"] is None
            assert (await manager.answer("reset", {}))["state"] == "ready"

    run(work)


def test_a_puzzle_may_let_its_machine_rest_sooner(made: World) -> None:
    wishing(made, "session: {idle: 1s}\n")

    async def work() -> None:
        async with keeping(made, limits="on", idle_pause=0.0) as manager:
            session = await started(made, manager)
            await resting(session)
            assert session.reason == "nobody has used it for 1 s"

    run(work)


def test_a_check_too_soon_and_a_hint_too_soon(made: World) -> None:
    wishing(made, "check_policy: {min_interval: 1h}\n")

    async def work() -> None:
        async with keeping(made, limits="on") as manager:
            attempt = await manager.find((await started(made, manager)).id)
            assert (await manager.answer("check", {}))["solved"] is False
            with pytest.raises(StateError, match=r"can be asked for in 3\d\d\d s") as caught:
                await manager.answer("check", {})
            assert caught.value.hint == "its puzzle allows one in 1h"
            assert attempt.session.record.checks_run == 1
            assert (await manager.answer("hint", {}))["text"] == "Look.\n"
            # The second is meant for after an hour, however it is asked for.
            for asked in ({}, {"now": True}, {"n": 2}):
                assert (await manager.answer("hint", asked))["text"] is None
            texts = [each["text"] for each in await manager.answer("hint", {"all": True})]
            assert texts == ["Look.\n", None]
            said, status = await attempt.asked("hint", ["--now"])
            assert b"Meant for later" in said and b"--now" not in said and status == 0
            earlier(attempt.session, HOUR)
            assert (await manager.answer("hint", {}))["text"] == "touch made\n"

    run(work)


def test_only_so_many_terminals_at_once(made: World) -> None:
    wishing(made, "access: {terminals: 2, console: false}\n")

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            first, second = await at_a_prompt(session), await at_a_prompt(session)
            with pytest.raises(StateError, match="has 2 terminals at once, and all are taken"):
                await at_a_prompt(session)
            rescue = Seat(session, Login(user="root", rescue=True), 24, 80)
            await rescue.sit_down()
            left = second.terminal
            await second.leave()
            assert session.detached == [left]
            third = await at_a_prompt(session)
            assert session.detached == [], "it made room"
            left = first.terminal
            await first.leave()
            assert session.detached == [left]
            again = Seat(session, Login(user="learner"), 24, 80)
            await again.come_back(session.detached[0])
            with pytest.raises(StateError, match="all are taken"):
                await at_a_prompt(session)
            for seat in (third, again, rescue):
                await seat.leave()
            with pytest.raises(StateError, match="gives no console"):
                async for _ in session.console():
                    pass

    run(work)


def test_a_place_that_is_not_taken_after_all(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fails to sit down, or is gone by then, keeps nobody else from it."""
    wishing(made, "access: {terminals: 1}\n")

    async def fail(self: Session, terminal: str) -> None:
        raise OSError("no")

    async def hang(self: Session, terminal: str) -> None:
        waiting.set()
        await anyio.sleep_forever()

    waiting = anyio.Event()

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            for hang_up in (fail, hang):
                session.detached.append("left")
                seat = Seat(session, Login(user="learner"), 24, 80)
                with monkeypatch.context() as patched:
                    patched.setattr(Session, "hang_up", hang_up)
                    async with anyio.create_task_group() as group:
                        if hang_up is fail:
                            with pytest.raises(OSError, match="no"):
                                await seat.sit_down()
                        else:
                            group.start_soon(seat.sit_down)
                            await waiting.wait()
                            group.cancel_scope.cancel()
                assert session.seated == set()
            with pytest.raises(GuestError):
                await seat.come_back("no-such")
            assert session.seated == set()
            await (await at_a_prompt(session)).leave()

    run(work)


def test_coming_back_is_counted_too(made: World) -> None:
    wishing(made, "access: {terminals: 1}\n")

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            first = await at_a_prompt(session)
            rescue = Seat(session, Login(user="root", rescue=True), 24, 80)
            await rescue.sit_down()
            # A shell that nobody knows of: it was opened through a keeper that died.
            other = await (await session.lifeline()).terminal(user="learner", rows=24, cols=80)
            await other.close()
            second = Seat(session, Login(user="learner"), 24, 80)
            with pytest.raises(StateError, match="has 1 terminal at once, and it is taken"):
                await second.come_back(other.id)
            assert session.seated == {first}
            # Ours again, by another way; and what is for rescue takes nobody's place.
            await second.come_back(first.terminal)
            saving = Seat(session, Login(user="root", rescue=True), 24, 80)
            await saving.come_back(rescue.terminal)
            await first.leave()
            assert (session.seated, session.detached) == ({second}, [])
            await second.send(b"echo ours-$((1+1))\n")
            await read_until(second, b"ours-2")
            for seat in (second, rescue, saving):
                await seat.leave()

    run(work)


async def notes_of(seat: Seat, seen: list[str]) -> None:
    async for note in seat.stands_still():
        seen.append(note.text)


async def work_at(seat: Seat) -> None:
    await seat.send(b"x")
    with anyio.move_on_after(0.2):
        while not isinstance(item := await seat.receive(), Ended):
            assert isinstance(item, Output | Note)


def test_a_puzzle_that_checks_by_itself(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_check, "_APART", 0.5)
    wishing(made, "check_policy: {trigger: auto}\nscoring: {points: 10, first_try_bonus: 5}\n")
    made.write("checks/made.sh", CHECK)

    def tried(session: Session) -> int:
        log = made.home.session(session.id).root / "fake" / "tried"
        return len(log.read_text().split()) if log.exists() else 0

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            await anyio.sleep(1.5)
            assert tried(session) == 0, "nobody has done anything"
            # However slow this is: what was done is fresh until the end.
            monkeypatch.setattr(auto_check, "_AFTER", HOUR)
            seat = await at_a_prompt(session)
            seen: list[str] = []
            async with anyio.create_task_group() as group:
                group.start_soon(notes_of, seat, seen)
                await work_at(seat)
                await until(lambda: tried(session) >= 2)
                # Nobody has asked, so that was nobody's try.
                assert (session.record.checks_run, session.record.checks_failed) == (0, 0)
                touch(made, session.id)
                await until(lambda: seen)
                group.cancel_scope.cancel()
            assert seen == [
                "Solved. Leave with `exit`: then `bugbox play` tells what was behind it"
            ]
            story: dict[str, Any] = await manager.answer("story", {})
            assert story["solved"] and story["points"] == 15
            done = tried(session)
            await work_at(seat)
            await anyio.sleep(1.5)
            assert tried(session) == done, "it is solved"
            await seat.leave()

    run(work)
    (line,) = made.home.progress.read_text().splitlines()
    assert json.loads(line)["points"] == 15


def test_a_machine_that_nobody_uses_is_not_checked(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would never come to rest."""
    monkeypatch.setattr(auto_check, "_APART", 0.2)
    monkeypatch.setattr(auto_check, "_AFTER", 0.5)
    wishing(made, "check_policy: {trigger: auto}\n")

    async def work() -> None:
        async with keeping(made, idle_pause=1.0) as manager:
            session = await started(made, manager)
            session.used = time.monotonic()
            await resting(session)

    run(work)


CHECK = """\
#!/bin/sh
echo once >>"$FAKE_ROOT/tried"
[ -e "$FAKE_ROOT/made" ] || { echo "No file yet."; exit 1; }
"""
