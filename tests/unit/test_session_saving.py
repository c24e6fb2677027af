# SPDX-License-Identifier: Apache-2.0
"""Machines on the disk: saved, loaded by the first use, refused when changed; fake machines."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
from session_world import MANIFEST, World, run, started, until, world

from bugbox.errors import OutOfResources, StateError
from bugbox.machine.fake import FakeDriver, FakeMachine
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.session import admission, record
from bugbox.session.manager import Manager
from bugbox.session.record import Ledger
from bugbox.session.session import Session
from bugbox.session.terminal import Ended, Login, Output, Seat


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as it:
        it.wire()
        yield it


@asynccontextmanager
async def keeping(made: World, **settings: Any) -> AsyncIterator[Manager]:
    async with Manager(made.home, replace(made.settings, **settings)) as manager:
        await manager.adopt_all()
        yield manager


async def saved(made: World, manager: Manager) -> Session:
    session = await started(made, manager)
    answer = await manager.answer("pause", {"id": session.id, "save": True})
    assert answer == {"id": session.id, "state": "saved"}
    return session


async def works(session: Session) -> None:
    assert (await (await session.lifeline()).run(["true"], timeout=20)).status == 0
    assert (session.state, session.record.saved) == ("ready", {})
    assert not session.ledger.paths.memory.exists()


async def ends(manager: Manager, made: World) -> None:
    await manager.answer("stop", {"all": True})
    assert made.leftovers() == []


def test_saved_nothing_runs_and_the_first_use_loads_it(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[int] = []

    async def offset(lifeline: Lifeline) -> int:
        return 7

    async def set_clock(lifeline: Lifeline, offset_ns: int) -> None:
        clocks.append(offset_ns)

    monkeypatch.setattr("bugbox.session.session.clock_offset", offset)
    monkeypatch.setattr("bugbox.session.session.set_clock", set_clock)

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            boot = (await session.lifeline()).hello
            await manager.answer("pause", {"save": True})
            assert made.processes() == []
            paths = session.ledger.paths
            assert paths.memory.stat().st_mode & 0o777 == 0o600
            assert session.record.saved["size"] == paths.memory.stat().st_size > 1 << 20
            (row,) = await manager.answer("ps", {})
            assert (row["state"], row["reason"]) == ("saved", "it was paused")
            # Nothing is asked of it for that, and again is as good as once.
            assert (await manager.answer("hint", {}))["n"] == 1
            again = await manager.answer("pause", {"save": True})
            assert again["state"] == (await manager.answer("pause", {}))["state"] == "saved"
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(works, session)
            assert clocks == [7]
            now = (await session.lifeline()).hello
            assert boot is not None and now is not None and now.boot_id == boot.boot_id
            assert made.log(session.id) == ["boot", "break", "session", "ready"]
            await ends(manager, made)

    run(work)


def test_a_machine_that_rests_already_is_saved_too(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            await session.pause()
            await session.pause(save=True)
            assert session.state == "saved"
            assert (await manager.answer("resume", {}))["state"] == "ready"
            await works(session)

    run(work)


def test_it_outlives_its_keeper_and_the_hosts_boot(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            # Another keeper died before that one, in the middle of it.
            session.ledger.paths.memory.with_name("memory.state.new").write_text("half")

    async def second() -> None:
        async with keeping(made) as manager:
            (row,) = await manager.answer("ps", {})
            assert row["state"] == "saved"
            assert list((made.home.session(row["id"]).root).glob("memory*.new")) == []
            session = (await manager.find(None)).session
            await works(session)
            await ends(manager, made)

    run(first)
    monkeypatch.setattr(record, "host_boot_id", lambda: "another boot")
    run(second)


def test_what_still_runs_beside_the_file_is_ended(made: World) -> None:
    """The keeper died after the record was written and before its VMM was gone."""

    async def first() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            kept = session.ledger.paths.memory.read_bytes()
            was = session.record
            await works(session)
            await session.pause()
            session.ledger.paths.memory.write_bytes(kept)
            session.ledger.write(state="saved", saved=was.saved)
            session.saving = True  # as if it had died at this point: nothing more is written

    async def second() -> None:
        async with keeping(made) as manager:
            session = (await manager.find(None)).session
            assert (session.state, made.processes()) == ("saved", [])
            await works(session)

    run(first)
    assert len(made.processes()) == 1
    run(second)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_leaves_it_running(
    made: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    suspend = FakeMachine.suspend

    async def full(self: FakeMachine, sink: int) -> tuple[int, str]:
        await suspend(self, sink)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FakeMachine, "suspend", full)

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            expected = OutOfResources if number == errno.ENOSPC else OSError
            with pytest.raises(expected, match=r"disk is full|Input/output"):
                await manager.answer("pause", {"save": True})
            assert (session.state, session.resting) == ("ready", "")
            assert list(session.ledger.paths.root.glob("memory*")) == []
            await until(lambda: session.record.state == "ready")
            await works(session)
            # One that rested before goes on resting.
            await session.pause()
            with pytest.raises(expected):
                await session.pause(save=True)
            assert (session.state, session.resting) == ("paused", "it was paused")

    run(work)


def test_without_room_it_is_not_even_paused(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        total: int = 1
        used: int = 1
        free: int = 300 << 20

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            monkeypatch.setattr("bugbox.storage.file.shutil.disk_usage", lambda _: Usage())
            with pytest.raises(OutOfResources, match="needs 320 MiB"):
                await session.pause(save=True)
            assert session.state == "ready"

    run(work)


@pytest.mark.parametrize("how", ["shorter", "changed", "gone", "another QEMU", "another CPU"])
def test_what_is_not_what_was_saved_is_refused(
    made: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def traits(self: FakeDriver, spec: Any) -> dict[str, str]:
        return {"vmm" if how.endswith("QEMU") else "cpu": "new"}

    async def work() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            path = session.ledger.paths.memory
            if how == "shorter":
                os.truncate(path, 1000)
            elif how == "changed":
                data = bytearray(path.read_bytes())
                data[700_000] ^= 1
                path.write_bytes(data)
            elif how == "gone":
                path.unlink()
            else:
                monkeypatch.setattr(FakeDriver, "traits", traits)
            for _ in range(2):
                with pytest.raises(StateError, match="cannot be loaded") as caught:
                    await session.lifeline()
                assert "resume" in str(caught.value.hint) and "--cold" in str(caught.value.hint)
                assert "reset" in str(caught.value.hint)
            assert (session.state, made.processes()) == ("saved", [])
            assert (await manager.answer("resume", {"cold": True}))["state"] == "ready"
            await works(session)
            assert made.log(session.id).count("boot") == 2
            with pytest.raises(StateError, match="runs"):
                await manager.answer("resume", {"cold": True})

    run(work)


def test_a_record_that_cannot_be_written_leaves_it_saved(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not run while its record says that it can be loaded."""
    write = Ledger.write

    def full(self: Ledger, **changes: Any) -> Any:
        if changes.get("saved") == {}:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, **changes)

    async def work() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            with monkeypatch.context() as patched:
                patched.setattr(Ledger, "write", full)
                with pytest.raises(OSError, match="No space"):
                    await session.lifeline()
            assert (session.state, made.processes()) == ("saved", [])
            await works(session)

    run(work)


def test_reset_and_stop_take_what_was_saved_along(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            assert (await manager.answer("reset", {}))["state"] == "ready"
            await works(session)
            await session.pause(save=True)
            await ends(manager, made)

    run(work)


def test_never_where_its_puzzle_forbids_it(made: World) -> None:
    made.write("puzzle.yaml", MANIFEST + "session: {pausable: false}\n")

    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            with pytest.raises(StateError, match="may not be paused"):
                await session.pause(save=True)
            assert session.state == "ready"

    run(work)


def test_a_key_in_an_open_terminal_loads_it(made: World) -> None:
    async def work() -> None:
        async with keeping(made) as manager:
            session = await started(made, manager)
            seat = Seat(session, Login(user="learner"), 24, 80)
            await seat.sit_down()
            seen = b""

            async def screen() -> None:
                nonlocal seen
                while True:
                    item = await seat.receive()
                    assert not isinstance(item, Ended), seen
                    seen += item.data if isinstance(item, Output) else f"<{item.text}>".encode()

            async with anyio.create_task_group() as group:
                group.start_soon(screen)
                await session.pause(save=True)
                await until(lambda: b"any key loads it>" in seen)
                await seat.send(b"echo on-$((1+1))\n")
                await until(lambda: b"on-2" in seen)
                group.cancel_scope.cancel()
            assert session.state == "ready"
            assert b"<the machine runs on>" in seen

    run(work)


def test_one_that_rests_is_saved_when_another_needs_the_room(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, each = 1000, 400

    def memory() -> admission.room.Room:
        left = room - each * len(made.processes())
        return admission.room.Room(total=room << 20, available=left << 20)

    monkeypatch.setattr(admission.room, "memory", memory)

    async def work() -> None:
        async with keeping(made, memory_reserve=100, idle_pause=0.0) as manager:
            first = await started(made, manager)
            await first.pause()
            second = await started(made, manager)
            assert first.state == "paused"
            await second.pause()
            third = await started(made, manager)
            assert (first.state, second.state, third.state) == ("saved", "paused", "ready")
            assert first.reason == "its memory was needed for another machine"
            # There is no room for it again until another one rests too.
            with pytest.raises(OutOfResources, match="does not fit"):
                await first.lifeline()
            assert first.state == "saved"
            await third.pause()
            await works(first)
            assert "saved" in (second.state, third.state)

    run(work)


def test_a_host_that_runs_short_gets_memory_back(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    available = 500

    def memory() -> admission.room.Room:
        return admission.room.Room(total=1000 << 20, available=available << 20)

    monkeypatch.setattr(admission.room, "memory", memory)

    async def work() -> None:
        nonlocal available
        available = 2000
        async with keeping(made, memory_reserve=100) as manager:
            used, rests = await started(made, manager), await started(made, manager)
            await rests.pause()
            assert not await manager._admission.relieve()
            available = 50
            assert await manager._admission.relieve()
            assert (used.state, rests.state) == ("ready", "saved")
            assert await manager._admission.relieve()
            assert used.state == "ready", "in use, it is left alone"

    run(work)


def test_a_saved_machine_is_loaded_to_be_forked(made: World) -> None:
    """Loading takes a turn of its own, before the fork's."""

    async def work() -> None:
        async with keeping(made) as manager:
            session = await saved(made, manager)
            manager._admission._turns.total_tokens = 1
            with anyio.fail_after(60):
                answer = await manager.answer("fork", {"id": session.id})
            assert answer["of"] == session.id and answer["state"] == session.state == "ready"
            await ends(manager, made)

    run(work)
