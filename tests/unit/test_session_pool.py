# SPDX-License-Identifier: Apache-2.0
"""Standby clones over the fake driver: made, claimed once, refilled, drained, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import MANIFEST, World, eventually, keeper_argv, run, world

from bugbox.errors import GuestError
from bugbox.host.proc import Process, start_time
from bugbox.keeper.client import request
from bugbox.machine.lifeline.connection import Connection
from bugbox.machine.lifeline.wire import Frame, Tag, Type, parse_fields
from bugbox.session.manager import Manager
from bugbox.session.pool import Pool
from bugbox.session.reaper import collect


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, templates="on") as it:
        it.wire()
        it.write("puzzle.yaml", MANIFEST + "machine: {memory: 128MiB}\n")
        yield it


class Keeping:
    """A manager that stays, as the keeper's does."""

    def __init__(self, made: World, manager: Manager) -> None:
        self.made = made
        self.manager = manager

    async def start(self) -> dict[str, Any]:
        return dict(await self.manager.answer("start", {"puzzle": str(self.made.puzzle)}))

    async def standbys(self, wanted: int) -> set[str]:
        """Wait until so many stand by."""
        with anyio.fail_after(60):
            while len(self.manager._pool.ids) != wanted:  # noqa: ASYNC110
                await anyio.sleep(0.02)
        return self.manager._pool.ids


@asynccontextmanager
async def keeping(made: World, **settings: Any) -> AsyncIterator[Keeping]:
    async with Manager(made.home, replace(made.settings, **settings), lasting=True) as manager:
        yield Keeping(made, manager)


def hostname(made: World, id: str) -> str:
    return (made.home.session(id).root / "fake/etc/hostname").read_text().strip()


def test_a_standby_is_claimed_once_and_refilled(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as it:
            assert (await it.start())["clone"] is False
            (id,) = await it.standbys(1)
            assert hostname(made, id) == id
            # It is nobody's session: it is not listed and cannot be found.
            assert len(await it.manager.answer("ps", {})) == 1
            answer = await it.start()
            assert (answer["id"], answer["clone"], answer["state"]) == (id, True, "ready")
            assert {"resume", "identity", "login"} <= answer["timings_ms"].keys()
            assert len(await it.manager.answer("ps", {})) == 2
            (other,) = await it.standbys(1)
            assert other != id
            assert (await it.manager.answer("check", {"id": id}))["solved"] is False

    run(work)
    # The keeper took its standby along, and left the sessions.
    assert len(list(made.home.sessions.iterdir())) == 2


def test_entropy_is_on_its_way_before_what_is_typed(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, sent = Connection._send, []

    def send(self: Connection, frame: Frame) -> None:
        if frame.type == Type.CALL:
            sent.append(parse_fields(frame.payload).text(Tag.KIND, limit=32))
        elif frame.type == Type.DATA:
            sent.append("typed")
        told(self, frame)

    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            await it.standbys(1)
            monkeypatch.setattr(Connection, "_send", send)
            assert (await it.start())["clone"] is True
            assert sent[:2] == ["entropy", "typed"]
            assert "clock" in sent

    run(work)


def test_claimed_at_once_by_two_each_gets_its_own(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            await it.standbys(1)
            answers: list[dict[str, Any]] = []

            async def start() -> None:
                answers.append(await it.start())

            async with anyio.create_task_group() as group:
                group.start_soon(start)
                group.start_soon(start)
            assert all(answer["clone"] for answer in answers)
            assert len({answer["id"] for answer in answers}) == 2

    run(work)


def test_one_that_died_is_not_handed_out(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            (id,) = await it.standbys(1)
            (standby,) = it.manager._pool._ready
            standby.machine.process.kill()
            answer = await it.start()
            assert answer["clone"] is True
            assert answer["id"] != id
            assert not made.home.session(id).root.exists()

    run(work)


@pytest.mark.parametrize("fails", ["_refresh", "_answer"])
def test_one_that_cannot_be_handed_over_is_let_be_first(
    made: World, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Nobody types into a machine that is being given back."""
    happened: list[str] = []
    give_back = Pool._give_back

    async def fail(self: Pool, *_: Any) -> None:
        await anyio.wait_all_tasks_blocked()
        raise GuestError("no")

    async def go_on(self: Pool, *_: Any) -> None:
        try:
            happened.append("begun")
            await anyio.sleep_forever()
        finally:
            happened.append("ended")

    async def told(self: Pool, standby: Any) -> None:
        happened.append("given back")
        await give_back(self, standby)

    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            (id,) = await it.standbys(1)
            with monkeypatch.context() as patched:
                patched.setattr(Pool, "_give_back", told)
                for name in ("_refresh", "_answer"):
                    patched.setattr(Pool, name, fail if name == fails else go_on)
                answer = await it.start()
            assert answer["clone"] is True and answer["id"] != id
            assert happened == ["begun", "ended", "given back"]

    run(work)


def test_drained_they_are_gone_until_the_next_start(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            (id,) = await it.standbys(1)
            assert await it.manager.answer("drain", {}) == {"drained": [id]}
            assert not made.home.session(id).root.exists()
            assert (await it.start())["clone"] is True
            await it.standbys(1)

    run(work)


def test_no_more_than_the_settings_say(made: World) -> None:
    async def work() -> None:
        async with keeping(made, standby=3, standby_most=2) as it:
            await it.start()
            await it.standbys(2)
            await anyio.sleep(0.1)
            assert not it.manager._pool._filling
        async with keeping(made, standby=0) as it:
            await it.start()
            await anyio.sleep(0.1)
            assert it.manager._pool.ids == set()

    run(work)


def test_a_changed_puzzle_gets_no_standby_of_the_old_one(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as it:
            await it.start()
            await it.standbys(1)
            made.write("break.sh", '#!/bin/sh\necho other >> "$FAKE_ROOT/log"\n')
            answer = await it.start()
            assert answer["clone"] is False
            assert "other" in made.log(answer["id"])

    run(work)


def test_a_killed_keeper_leaves_none_after_gc(made: World) -> None:
    keeper = subprocess.Popen(keeper_argv(made, templates="on"))
    try:
        eventually(lambda: made.home.keeper_socket.exists())
        first = request(made.home, "start", {"puzzle": str(made.puzzle)})["id"]
        eventually(lambda: len(made.processes()) == 2 and _paused(made), 60)
    finally:
        os.kill(keeper.pid, signal.SIGKILL)
        keeper.wait()
    collect(made.home)
    assert [path.name for path in made.home.sessions.iterdir()] == [first]
    (pid,) = made.processes()
    Process(pid=pid, started=start_time(pid) or 0).kill()


def _paused(made: World) -> bool:
    return "stands by" in made.home.keeper_log.read_text()
