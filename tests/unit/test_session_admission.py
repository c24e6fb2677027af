# SPDX-License-Identifier: Apache-2.0
"""Starts that do not fit are refused with the numbers; what nobody uses gives way before that."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from session_world import MANIFEST, World, run, until, world

from bugbox.errors import OutOfResources
from bugbox.events import Event, Notice, listening
from bugbox.host import room
from bugbox.session import admission
from bugbox.session.admission import VMM_MIB, Account
from bugbox.session.manager import Manager
from bugbox.session.session import Session

MEM = 128
NEED = MEM + VMM_MIB
RESERVE = 100


class Host:
    """A host with so many MiB, of which each machine of ours takes `each`."""

    def __init__(self, made: World, mib: int, each: int = 0) -> None:
        self.made, self.mib, self.each = made, mib, each

    def memory(self) -> room.Room:
        left = self.mib - self.each * len(self.made.processes())
        return room.Room(total=8192 << 20, available=max(0, left) << 20)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, templates="on") as it:
        it.wire()
        it.write("puzzle.yaml", MANIFEST + f"machine: {{memory: {MEM}MiB}}\n")
        yield it


@pytest.fixture
def host(made: World, monkeypatch: pytest.MonkeyPatch) -> Host:
    """For one machine there is room, for two there is not."""
    it = Host(made, RESERVE + NEED + NEED // 2)
    monkeypatch.setattr(room, "memory", it.memory)
    monkeypatch.setattr(admission, "_IDLE_ENOUGH", 0.3)
    return it


@asynccontextmanager
async def keeping(made: World, *, lasting: bool = False, **settings: Any) -> AsyncIterator[Manager]:
    wanted = replace(made.settings, memory_reserve=RESERVE, **settings)
    async with Manager(made.home, wanted, lasting=lasting) as manager:
        yield manager
        await manager.answer("stop", {"all": True})


async def start(manager: Manager, puzzle: Path) -> Session:
    answer = await manager.answer("start", {"puzzle": str(puzzle), "warm": False})
    return (await manager.find(answer["id"])).session


def test_what_can_be_given() -> None:
    account = Account(
        total=8192, available=1000, reserve=100, running=1, running_use=60, claimed=300, promised=50
    )
    assert account.free == 550
    assert account.lines() == [
        "1000 MiB of the host's 8192 MiB are available",
        "100 MiB are kept free (setting memory_reserve)",
        "1 machine that runs uses 60 MiB and may take 300 MiB more",
        "starts under way may take 50 MiB",
    ]


def test_a_start_that_does_not_fit_is_refused_with_the_numbers(made: World, host: Host) -> None:
    async def work() -> None:
        async with keeping(made, idle_pause=0.0) as manager:
            session = await start(manager, made.puzzle)
            with pytest.raises(OutOfResources) as caught:
                await start(manager, made.puzzle)
            error = caught.value
            assert error.exit_status == 3
            assert error.message.startswith(f"tiny does not fit: it may take {NEED} MiB of memory")
            assert f"{host.mib} MiB of the host's 8192 MiB are available" in str(error.detail)
            assert "1 machine that runs uses " in str(error.detail)
            assert "bugbox ps" in str(error.hint)
            assert len(list(made.home.sessions.iterdir())) == 1
            # Paused, it takes no more than it has: then there is room.
            await session.pause()
            other = await start(manager, made.puzzle)
            told = await manager.answer("fit", {"puzzle": str(made.puzzle)})
            assert told["fits"] == 0 and told["each_mib"] == NEED
            assert (told["host"]["running"], told["host"]["resting"]) == (1, 1)
            assert "1 machine that is paused uses" in told["why"][-1]
            await manager.answer("stop", {"ids": [session.id, other.id]})
            assert (await manager.answer("fit", {"puzzle": str(made.puzzle)}))["fits"] == 1

    run(work)


def test_a_machine_that_nobody_uses_gives_way(made: World, host: Host) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await start(manager, made.puzzle)
            await until(lambda: manager._caretaker.idle(session) > 0.3)
            await start(manager, made.puzzle)
            assert session.state == "paused"
            assert session.resting == "nobody used it, and another machine needed room"
            assert (await session.lifeline()).connected
            assert session.state == "ready"

    run(work)


def test_one_that_is_used_or_may_not_be_paused_does_not(made: World, host: Host) -> None:
    async def work(manager: Manager, session: Session) -> None:
        with pytest.raises(OutOfResources):
            await start(manager, made.puzzle)
        assert session.state == "ready"

    async def used() -> None:
        async with keeping(made) as manager:
            session = await start(manager, made.puzzle)
            lifeline = await session.lifeline()
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: lifeline.run(["sleep", "30"], timeout=60))
                await until(lambda: lifeline.working)
                await anyio.sleep(0.5)
                await work(manager, session)
                group.cancel_scope.cancel()

    async def forbidden() -> None:
        text = (made.puzzle / "puzzle.yaml").read_text()
        made.write("puzzle.yaml", text + "session: {pausable: false}\n")
        async with keeping(made) as manager:
            session = await start(manager, made.puzzle)
            await until(lambda: manager._caretaker.idle(session) > 0.3)
            await work(manager, session)

    run(used)
    run(forbidden)


def test_one_with_a_forwarded_connection_is_paused_and_not_saved(made: World, host: Host) -> None:
    async def work() -> None:
        async with keeping(made, idle_pause=0.0) as manager:
            session = await start(manager, made.puzzle)
            server = await anyio.create_tcp_listener(local_host="127.0.0.1")
            port = server.extra(anyio.abc.SocketAttribute.local_port)
            async with server:
                connection = await (await session.lifeline()).dial(port)
                await session.pause()
                host.mib = RESERVE + 10
                assert not await manager._admission._save_one()
                await session.lifeline()
                await connection.close()
                await until(lambda: session.machine and not session.machine.lifeline.dialled)
                await session.pause()
                assert await manager._admission._save_one()
                assert session.state == "saved"
                host.mib = 4096

    run(work)


def test_standbys_of_others_give_way_first(made: World, host: Host) -> None:
    other = made.puzzle.with_name("other")
    shutil.copytree(made.puzzle, other)
    manifest = other / "puzzle.yaml"
    manifest.write_text(manifest.read_text().replace("name: tiny\n", "name: other\n"))

    async def work() -> None:
        host.mib = 4096
        async with keeping(made, lasting=True) as manager:
            session = await start(manager, made.puzzle)
            await manager.answer("start", {"puzzle": str(made.puzzle)})
            await until(lambda: len(manager._pool.ids) == 1, 60)
            await until(lambda: not manager._pool._filling)
            # Room for one more, once the standby is gone.
            (standby,) = manager._pool._ready
            host.each = 200
            host.mib = RESERVE + 3 * 200 + 2 * NEED + NEED - 100
            await until(lambda: manager._caretaker.idle(session) > 0.3)
            await start(manager, other)
            assert manager._pool.ids == set()
            assert session.state == "ready", "nobody was paused for it"
            assert not standby.ledger.paths.root.exists()

    run(work)


def test_no_standby_and_no_template_where_there_is_no_room(made: World, host: Host) -> None:
    async def work() -> None:
        async with keeping(made, lasting=True, idle_pause=0.0) as manager:
            await manager.answer("start", {"puzzle": str(made.puzzle)})
            await anyio.sleep(0.5)
            assert not made.home.templates.exists() or not list(made.home.templates.iterdir())
            assert len(made.processes()) == 1

    run(work)


def test_room_is_held_for_starts_under_way(made: World, host: Host) -> None:
    async def work() -> None:
        async with keeping(made, idle_pause=0.0) as manager:
            refused: list[OutOfResources] = []

            async def one() -> None:
                try:
                    await start(manager, made.puzzle)
                except OutOfResources as error:
                    refused.append(error)

            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(one)
            assert len(refused) == 2
            assert "starts under way may take" in str(refused[0].detail)
            assert manager._admission._promised == 0
            assert manager.count == 1

    run(work)


def test_many_starts_take_turns(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    now = most = 0
    from bugbox.session import manager as module

    provision = module.provision

    async def counted(*args: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            return await provision(*args)
        finally:
            now -= 1

    monkeypatch.setattr(module, "provision", counted)

    async def work() -> None:
        async with keeping(made) as manager:
            turns = int(manager._admission._turns.total_tokens)
            with listening(told.append):
                async with anyio.create_task_group() as group:
                    for _ in range(turns + 3):
                        group.start_soon(start, manager, made.puzzle)
            assert (most, manager.count) == (turns, turns + 3)

    run(work)
    waits = [event.text for event in told if isinstance(event, Notice)]
    assert len(waits) == 3 and all("waits for its turn" in text for text in waits)
