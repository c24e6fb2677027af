# SPDX-License-Identifier: Apache-2.0
"""Sessions on a full disk, with threads that overtake one another, with puzzles that change."""

from __future__ import annotations

import errno
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import PATIENCE, World, run, until, world
from test_session_manager import managed, signal_vmm, start, touch, until_state

from bugbox.errors import NotBuilt, StateError
from bugbox.events import Event, Notice, listening
from bugbox.machine.state import State
from bugbox.session import prepare, record
from bugbox.session import session as session_module
from bugbox.session.manager import Manager
from bugbox.session.reaper import give_back, give_back_soon
from bugbox.session.record import Ledger, claim, take_over


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        yield made


def full(*_: object, **__: object) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_reboot_on_a_full_disk_ends_and_says_so(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_room(*_: object, **__: object) -> None:
        full()

    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        monkeypatch.setattr(session_module, "make_ready", no_room)
        signal_vmm(session, signal.SIGUSR1)
        await until_state(session, "failed")
        assert "No space left" in session.reason
        await until(lambda: session._coming_back is None)
        with anyio.fail_after(PATIENCE):
            await session.settled()

    managed(made, work)


def test_the_state_written_last_is_the_one_it_is_in(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers in threads: whichever comes second writes down how it is by then."""

    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        await until(lambda: session.record.state == "ready")
        overtaken, calls = anyio.Event(), 0

        async def in_no_order(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                await overtaken.wait()
                return function(*args, **kwargs)
            done = function(*args, **kwargs)
            overtaken.set()
            return done

        monkeypatch.setattr(session_module, "in_thread", in_no_order)
        session._spawn(session._write_state)
        assert session.machine is not None
        session.trouble = "the first"
        await until(lambda: calls == 1)
        session.trouble = "the second"
        session._spawn(session._write_state)
        await until(lambda: session.record.reason == "the second")
        await anyio.wait_all_tasks_blocked()
        assert (session.record.state, session.record.reason) == ("failed", "the second")
        monkeypatch.undo()
        made.wire()
        session.trouble = ""

    managed(made, work)


def test_who_let_go_writes_nothing_and_ends_nothing(made: World) -> None:
    ledger = claim(made.home, "x", title="old")
    ledger.close()
    heir = take_over(made.home, ledger.record.id)
    assert heir is not None
    with pytest.raises(StateError, match="not ours"):
        ledger.write(title="new")
    assert record.load(made.home, heir.record.id).title == "old"
    assert give_back_soon(ledger) is False
    give_back(ledger)
    assert record.load(made.home, heir.record.id).phase is record.Phase.MAKING
    give_back(heir)
    assert not heir.paths.root.exists()


def test_one_that_cannot_be_released_costs_the_others_nothing(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []

    async def work(manager: Manager) -> None:
        ids.extend([await start(made, manager), await start(made, manager)])
        machine = (await manager.find(ids[0])).session.machine
        release = machine.release  # type: ignore[union-attr]

        async def fails() -> None:
            await release()
            raise RuntimeError("no")

        monkeypatch.setattr(machine, "release", fails)

    managed(made, work)
    for id in ids:
        ledger = take_over(made.home, id)
        assert ledger is not None, id
        ledger.close()


@pytest.mark.parametrize("spoilt", ["not built", "no manifest"])
def test_a_reset_that_cannot_begin_leaves_the_machine_its_checks(
    made: World, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        made.write("checks/made.sh", "#!/bin/sh\necho Another.; exit 1\n")
        with monkeypatch.context() as patch:
            if spoilt == "not built":
                patch.setattr(prepare, "find", lambda *_: None)
                with pytest.raises(NotBuilt):
                    await manager.answer("reset", {})
            else:
                manifest = (made.puzzle / "puzzle.yaml").read_text()
                made.write("puzzle.yaml", "schema: 1\n")
                with pytest.raises(Exception, match=r"puzzle\.yaml"):
                    await manager.answer("reset", {})
                made.write("puzzle.yaml", manifest)
        report = await manager.answer("check", {"id": id})
        assert report["checks"][0]["message"] == "No file yet."
        await manager.answer("reset", {})
        report = await manager.answer("check", {"id": id})
        assert report["checks"][0]["message"] == "Another."

    managed(made, work)


def test_a_verdict_and_a_hint_on_a_full_disk(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        heard: list[Event] = []
        with monkeypatch.context() as patch, listening(heard.append):
            patch.setattr(Ledger, "update", full)
            assert (await manager.answer("check", {}))["solved"] is False
            assert (await manager.answer("hint", {}))["text"] == "Look.\n"
        told = [event.text for event in heard if isinstance(event, Notice)]
        assert len(told) == 2 and all("not remembered" in text for text in told)
        touch(made, id)
        assert (await manager.answer("check", {}))["solved"] is True
        assert (await manager.answer("story", {}))["checks_run"] == 1

    managed(made, work)


def test_a_stop_waits_for_no_reset(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        booting = anyio.Event()

        async def for_ever(*_: object, **__: object) -> Any:
            booting.set()
            await anyio.sleep_forever()

        monkeypatch.setattr(Manager, "_bring", lambda *_, **__: for_ever)
        refused: list[str] = []

        async def ask(verb: str) -> None:
            try:
                await manager.answer(verb, {"id": session.id})
            except StateError as error:
                refused.append(f"{verb}: {error.message}")

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "reset")
            await booting.wait()
            group.start_soon(ask, "resume")
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(PATIENCE):
                await manager.answer("stop", {"ids": [session.id]})
        assert refused == [f"{verb}: {session.id} is being stopped" for verb in ("reset", "resume")]
        assert made.leftovers() == []

    managed(made, work)


def test_what_cannot_be_adopted_is_looked_at_once(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    adopt_all: Callable[[Manager], Awaitable[None]] = Manager.adopt_all

    async def counted(manager: Manager) -> None:
        nonlocal tries
        tries += 1
        await adopt_all(manager)

    async def main() -> None:
        async with Manager(made.home, made.settings) as first:
            id = await start(made, first)
        path = made.home.session(id).record
        whole = path.read_bytes()
        path.write_bytes(b"{")
        monkeypatch.setattr(Manager, "adopt_all", counted)
        async with Manager(made.home, made.settings) as second:
            for _ in range(3):
                assert await second.answer("ps", {}) == []
            assert tries == 1
            path.write_bytes(whole)
            (row,) = await second.answer("ps", {})
            assert (row["id"], row["state"], tries) == (id, State.READY, 2)
            # Nor is one that somebody keeps: a start under way, for one.
            kept = claim(made.home, "x")
            await second.answer("ps", {})
            assert tries == 2
            give_back(kept)

    run(main)
