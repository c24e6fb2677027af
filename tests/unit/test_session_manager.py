# SPDX-License-Identifier: Apache-2.0
"""The manager and its sessions, in this process, with fake machines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import anyio
import pytest
from session_world import PATIENCE, World, read_until, run, until, world

from bugbox.errors import (
    BootFailed,
    GuestError,
    MachineLost,
    NotBuilt,
    NotFound,
    StateError,
    UserError,
)
from bugbox.machine.lifeline.command import Result
from bugbox.machine.state import State
from bugbox.session import prepare, record
from bugbox.session.guard import NEEDED, look
from bugbox.session.manager import Manager
from bugbox.session.ready import goes_down
from bugbox.session.session import Session
from bugbox.session.terminal import Login, Note, Seat

Work = Callable[[Manager, Any], Awaitable[None]]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        yield made


def managed(made: World, work: Callable[[Manager], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Manager(made.home, made.settings) as manager:
            await manager.adopt_all()
            await work(manager)

    run(main)


async def start(made: World, manager: Manager) -> str:
    return str((await manager.answer("start", {"puzzle": str(made.puzzle)}))["id"])


def touch(made: World, id: str) -> None:
    (made.home.session(id).root / "fake" / "made").touch()


def signal_vmm(session: Session, number: int) -> None:
    assert session.machine is not None
    os.kill(session.machine.process.pid, number)


async def until_state(session: Session, state: str) -> None:
    with anyio.fail_after(PATIENCE):
        while session.state != state:
            await session.changed(20)


def test_who_is_meant(made: World) -> None:
    async def work(manager: Manager) -> None:
        with pytest.raises(NotFound, match="no session runs"):
            await manager.find(None)
        one = await start(made, manager)
        for ref in (None, "", one, one[:6], "tiny"):
            assert (await manager.find(ref)).session.id == one
        two = await start(made, manager)
        for ref in (None, "tiny", "ti"):
            with pytest.raises(UserError, match="which session") as caught:
                await manager.find(ref)
            assert one in (caught.value.hint or "") and two in (caught.value.hint or "")
        assert (await manager.find(two)).session.id == two
        with pytest.raises(NotFound, match="no session nope"):
            await manager.find("nope")
        with pytest.raises(UserError):
            await manager.find(3)
        assert await manager.answer("stop", {"ids": [one, two, one]}) == {
            "stopped": sorted([one, two])
        }

    managed(made, work)


def test_a_puzzles_name_is_meant_before_the_beginning_of_another(made: World) -> None:
    other = made.puzzle.with_name("tiny-two")
    shutil.copytree(made.puzzle, other)
    manifest = other / "puzzle.yaml"
    manifest.write_text(manifest.read_text().replace("name: tiny\n", "name: tiny-two\n"))

    async def work(manager: Manager) -> None:
        one = await start(made, manager)
        two = str((await manager.answer("start", {"puzzle": str(other)}))["id"])
        assert two.startswith("tiny-two-")
        assert (await manager.find("tiny")).session.id == one
        assert (await manager.find("tiny-two")).session.id == two

    managed(made, work)


def test_the_disk_that_is_asked_for_is_the_one_made(made: World) -> None:
    async def work(manager: Manager) -> None:
        await manager.answer("start", {"puzzle": str(made.puzzle), "disk": "copy"})
        (row,) = await manager.answer("ps", {})
        assert row["disk"] == "copy"
        assert (made.home.session(row["id"]).root / "disk.raw").stat().st_size >= 1 << 30
        with pytest.raises(UserError, match="no way to make a disk"):
            await manager.answer("start", {"puzzle": str(made.puzzle), "disk": "floppy"})

    managed(made, work)


def test_a_host_disk_that_runs_full_pauses_a_snapshots_machine(made: World) -> None:
    """Before the kernel gives the snapshot up; it says why, and goes on when told to."""

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        session = (await manager.find(id)).session
        assert not await look(session, lambda: NEEDED)
        assert session.state == "ready"
        assert await look(session, lambda: NEEDED - (1 << 20))
        assert not await look(session, lambda: 0), "it stands still already"
        (row,) = await manager.answer("ps", {})
        assert row["state"] == "paused" and "255 MiB are free" in row["reason"]
        with pytest.raises(StateError, match="255 MiB are free"):
            await session.lifeline()
        await manager.answer("resume", {"id": id})
        (row,) = await manager.answer("ps", {})
        assert (row["state"], row["reason"]) == ("ready", "")

    managed(made, work)


def test_ps_has_the_contracts_keys(made: World) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)
        (row,) = await manager.answer("ps", {})
        assert set(row) >= {"id", "puzzle", "state", "started", "driver", "disk", "memory_mib"}
        json.dumps(row)

    managed(made, work)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"driver": "firecracker"}, UserError),
    ],
)
def test_what_is_not_there_yet_is_refused(
    made: World, args: dict[str, Any], error: type[Exception]
) -> None:
    async def work(manager: Manager) -> None:
        with pytest.raises(error, match="not supported yet"):
            await manager.answer("start", {"puzzle": str(made.puzzle), **args})

    managed(made, work)
    assert made.leftovers() == []


def test_what_is_not_built_is_said_and_not_built(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(manager: Manager) -> None:
        with pytest.raises(NotBuilt, match="tiny"):
            await start(made, manager)

    # Undone here: the world has a `find` of its own, and takes it back before monkeypatch would.
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find", lambda *_: None)
        managed(made, work)


def test_progress_is_remembered_across_keepers(made: World) -> None:
    async def first(manager: Manager) -> None:
        id = await start(made, manager)
        assert (await manager.answer("check", {}))["solved"] is False
        await manager.answer("hint", {})
        touch(made, id)
        assert (await manager.answer("check", {}))["solved"] is True
        assert (await manager.answer("check", {}))["solved"] is True

    async def second(manager: Manager) -> None:
        story = await manager.answer("story", {})
        assert story["solved"] is True
        assert story["checks_run"] == 3
        assert story["hints_used"] == 1
        assert story["debrief"] == "It was not there.\n"

    managed(made, first)
    managed(made, second)
    (line,) = made.home.progress.read_text().splitlines()
    told = json.loads(line)
    assert (told["event"], told["puzzle"], told["hints"], told["checks"]) == (
        "solved",
        "tiny",
        1,
        2,
    )
    assert told["seconds"] > 0


def test_hints_one_after_the_other(made: World) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)
        ask = manager.answer
        assert (await ask("hint", {}))["text"] == "Look.\n"
        held = await ask("hint", {})
        assert (held["n"], held["text"]) == (2, None)
        assert held["next_in_s"] > 3000
        assert (await ask("hint", {"now": True}))["text"] == "touch made\n"
        assert [hint["n"] for hint in await ask("hint", {"all": True})] == [1, 2]
        assert (await ask("hint", {"n": 1}))["title"] == "First"

    managed(made, work)


def test_the_solution_is_for_those_who_solved_or_give_up(made: World) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)
        with pytest.raises(StateError, match="not solved yet"):
            await manager.answer("solution", {})
        told = await manager.answer("solution", {"give_up": True})
        assert told["text"] == "Touch it.\n"
        assert "touch" in told["script"]
        assert await manager.answer("solution", {}) == told

    managed(made, work)


def test_a_bare_machine_has_no_puzzle(made: World) -> None:
    async def work(manager: Manager) -> None:
        await manager.answer("start", {"image": "debian-12"})
        for verb in ("check", "hint", "solution", "story"):
            with pytest.raises(UserError, match="bare machine"):
                await manager.answer(verb, {})

    managed(made, work)


def test_a_check_has_a_verdict_when_nobody_answers(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)

        async def silence(session: Session) -> None:
            raise MachineLost("it no longer answers")

        monkeypatch.setattr(Session, "lifeline", silence)
        report = await manager.answer("check", {})
        assert report["solved"] is False
        assert "no longer answers" in report["checks"][0]["message"]

    managed(made, work)


def test_questions_from_inside(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        attempt = await manager.find(id)
        text, status = await attempt.asked("check", [])
        assert b"No file yet." in text and status == 1
        text, status = await attempt.asked("hint", ["2"])
        assert b"touch made" in text and status == 0
        text, status = await attempt.asked("story", [])
        assert b"There should be a file." in text
        text, status = await attempt.asked("hint", ["99"])
        assert status == 2
        assert (await attempt.asked("stop", ["--all"]))[1] == 2
        statuses = [(await attempt.asked("story", []))[1] for _ in range(10)]
        assert 75 in statuses  # a loop in the guest is told to wait
        assert attempt.session.record.checks_run == 1

    managed(made, work)


@pytest.mark.parametrize(
    ("told", "most"),
    [("--width=30", 30), ("--width=9", 20), ("--width=99999999999", 100), ("--width=x", 80)],
)
def test_a_story_fits_the_terminal_it_was_asked_from(made: World, told: str, most: int) -> None:
    made.write("description.md", "*There* is " + "a " * 99 + "file.")

    async def work(manager: Manager) -> None:
        await start(made, manager)
        text, _ = await (await manager.find(None)).asked("story", [told])
        bare = re.sub(r"\x1b\[\d+m", "", text.decode())
        assert most - 2 <= max(len(line) for line in bare.splitlines()) <= most
        assert ("\x1b[1mThere\x1b[0m" in text.decode()) is (told != "--width=x")

    managed(made, work)


def test_an_escape_in_a_puzzles_text_reaches_no_terminal(made: World) -> None:
    made.write("checks/made.sh", "#!/bin/sh\nprintf 'a\\033[2Jb\\n'; exit 1\n")

    async def work(manager: Manager) -> None:
        await start(made, manager)
        text, _ = await (await manager.find(None)).asked("check", [])
        assert b"\x1b" not in text
        assert b"\\x1b[2J" in text

    managed(made, work)


def test_reset_gives_a_fresh_machine_under_the_same_id(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        session = (await manager.find(id)).session
        touch(made, id)
        assert (await manager.answer("check", {}))["solved"] is True
        seat = Seat(session, Login(user="learner"), 24, 80)
        await seat.sit_down()
        pid = session.record.pid
        async with anyio.create_task_group() as group:
            group.start_soon(read_until, seat, b"<the machine is back>")
            answer = await manager.answer("reset", {})
        assert (answer["id"], answer["state"]) == (id, "ready")
        assert session.record.pid != pid
        assert made.log(id) == ["boot", "break", "session", "ready"] * 2
        assert session.summary()["solved"] is False
        assert len(made.processes()) == 1

    managed(made, work)


def test_a_reset_that_fails_leaves_a_session_that_can_be_reset(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        made.write("boot.sh", "#!/bin/sh\nexit 9\n")
        with pytest.raises(BootFailed, match="status 9"):
            await manager.answer("reset", {})
        (row,) = await manager.answer("ps", {})
        assert row["state"] == "failed"
        assert "status 9" in row["reason"]
        assert made.processes() == []
        made.write("boot.sh", "#!/bin/sh\nexit 0\n")
        assert (await manager.answer("reset", {"id": id}))["state"] == "ready"

    managed(made, work)


def test_an_interrupted_reset_has_ended_the_old_machine(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        machine = session.machine
        assert machine is not None
        ending, stop = anyio.Event(), machine.stop

        async def told(grace: float = 5.0) -> None:
            ending.set()
            await anyio.lowlevel.checkpoint()
            await stop(grace)

        monkeypatch.setattr(machine, "stop", told)
        async with anyio.create_task_group() as group:
            group.start_soon(manager.answer, "reset", {})
            await ending.wait()
            group.cancel_scope.cancel()
        assert machine.state == State.STOPPED
        assert made.processes() == []
        assert session.state == "failed"
        assert (await manager.answer("resume", {}))["state"] == "ready"

    managed(made, work)


def test_a_keeper_that_dies_in_a_reset(made: World) -> None:
    """Nobody knows whether the new machine was broken yet: it is not handed to the learner."""

    async def first(manager: Manager) -> None:
        id = await start(made, manager)
        (await manager.find(id)).session.ledger.write(fresh=True)

    async def second(manager: Manager) -> None:
        (row,) = await manager.answer("ps", {})
        assert row["state"] == "failed"
        assert made.processes() == []
        assert (await manager.answer("resume", {}))["state"] == "ready"
        assert made.log(row["id"]) == ["boot", "break", "session", "ready"] * 2

    managed(made, first)
    managed(made, second)


def test_a_reboot_runs_boot_and_nothing_else(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        session = (await manager.find(id)).session
        signal_vmm(session, signal.SIGUSR1)
        await until_state(session, "rebooting")
        await until_state(session, "ready")
        assert made.log(id) == ["boot", "break", "session", "ready", "boot"]
        assert (await manager.answer("check", {}))["solved"] is False

    managed(made, work)


def test_a_reboot_that_fails_says_why_and_rescue_still_works(made: World) -> None:
    made.write("boot.sh", '#!/bin/sh\n[ ! -e "$FAKE_ROOT/spoilt" ]\n')

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        session = (await manager.find(id)).session
        (made.home.session(id).root / "fake" / "spoilt").touch()
        seat = Seat(session, Login(user="learner"), 24, 80)
        await seat.sit_down()
        signal_vmm(session, signal.SIGUSR1)
        await until_state(session, "failed")
        assert "boot.sh ended with status 1" in session.reason
        with pytest.raises(MachineLost, match=r"boot.sh.*"), anyio.fail_after(PATIENCE):
            while True:
                await seat.receive()
        rescue = Seat(session, Login(user="root", rescue=True), 24, 80)
        await rescue.sit_down()
        await rescue.send(b"echo in-$((1+1))\n")
        await read_until(rescue, b"in-2")
        (made.home.session(id).root / "fake" / "spoilt").unlink()
        assert (await manager.answer("resume", {}))["state"] == "ready"

    managed(made, work)


def test_only_so_many_shells_are_kept_for_nobody(made: World) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        for _ in range(12):
            seat = Seat(session, Login(user="learner"), 24, 80)
            await seat.sit_down()
            await seat.leave()
        assert len(session.detached) == 8
        lifeline = await session.lifeline()
        assert len(await lifeline.terminals()) == 8
        seat = Seat(session, Login(user="learner"), 24, 80)
        await seat.come_back(session.detached[3])
        assert len(session.detached) == 7

    managed(made, work)


def test_somebody_else_takes_the_terminal(made: World) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        first = Seat(session, Login(user="learner"), 24, 80)
        await first.sit_down()
        await read_until(first, b"$ ")
        second = Seat(session, Login(user="learner"), 24, 80)
        await second.come_back(first.terminal)
        with pytest.raises(GuestError, match="somebody else"), anyio.fail_after(PATIENCE):
            while True:
                await first.receive()
        await second.send(b"echo second-$((1+1))\n")
        await read_until(second, b"second-2")

    managed(made, work)


def test_a_machine_that_stands_still_is_told(made: World) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        seat = Seat(session, Login(user="learner"), 24, 80)
        await seat.sit_down()
        notes: list[Note] = []

        async def listen() -> None:
            async for note in seat.stands_still():
                notes.append(note)

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            assert session.machine is not None
            await session.machine.pause()
            await until_state(session, "paused")
            with pytest.raises(StateError, match="stands still"):
                await session.lifeline()
            assert (await manager.answer("resume", {}))["state"] == "ready"
            await until(lambda: len(notes) == 2)
            group.cancel_scope.cancel()
        assert [note.state for note in notes] == [State.PAUSED, State.READY]

    managed(made, work)


def test_an_end_is_finished_although_its_client_is_gone(made: World) -> None:
    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        async with anyio.create_task_group() as group:
            group.start_soon(manager.answer, "stop", {"all": True})
            await until(lambda: session.record.phase is record.Phase.ENDING)
            group.cancel_scope.cancel()
        assert made.leftovers() == []
        assert await manager.answer("ps", {}) == []

    managed(made, work)


def test_two_managers_do_not_fight_over_a_machine(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        async with Manager(made.home, made.settings) as other:
            await other.adopt_all()
            assert await other.answer("ps", {}) == []
            with pytest.raises(NotFound):
                await other.answer("check", {"id": id})
        assert (await manager.answer("check", {}))["solved"] is False

    managed(made, work)


def test_a_host_that_was_restarted(made: World) -> None:
    async def first(manager: Manager) -> None:
        await start(made, manager)
        await start(made, manager)
        one, two = [(await manager.find(id)).session for id in record.ids(made.home)]
        signal_vmm(one, signal.SIGUSR2)
        await until_state(one, "off")
        await until(lambda: one.record.state == "off")
        for session in (one, two):
            session.ledger.write(host_boot="another")
            signal_vmm(session, signal.SIGKILL)
        await until(lambda: not made.processes())

    async def second(manager: Manager) -> None:
        rows = {row["state"]: row for row in await manager.answer("ps", {})}
        assert set(rows) == {"off", "failed"}
        for row in rows.values():
            assert (await manager.answer("resume", {"id": row["id"]}))["state"] == "ready"

    managed(made, first)
    managed(made, second)


def test_a_puzzle_that_is_gone_does_not_cost_the_machine(made: World) -> None:
    async def first(manager: Manager) -> None:
        await start(made, manager)

    async def second(manager: Manager) -> None:
        (row,) = await manager.answer("ps", {})
        assert (row["puzzle"], row["state"]) == ("tiny", "ready")
        with pytest.raises(UserError):
            await manager.answer("check", {})

    managed(made, first)
    (made.puzzle / "puzzle.yaml").unlink()
    managed(made, second)


def test_debug_and_logs_are_plain_values(made: World) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)
        told = await manager.answer("debug", {})
        assert "Linux version fake" in told["console"]
        assert told["running"] is True
        json.dumps(told)
        log = await manager.answer("logs", {"which": "console"})
        assert "Linux version fake" in log["text"]
        with pytest.raises(UserError, match="no log named"):
            await manager.answer("logs", {"which": "../../etc/passwd"})

    managed(made, work)


def test_a_shell_of_a_stopped_session_ends_and_says_so(made: World) -> None:
    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        seat = Seat((await manager.find(id)).session, Login(user="learner"), 24, 80)
        await seat.sit_down()
        await read_until(seat, b"$ ")
        async with anyio.create_task_group() as group:
            group.start_soon(manager.answer, "stop", {"ids": [id]})
            with pytest.raises(MachineLost, match=f"{id} was stopped"), anyio.fail_after(PATIENCE):
                while True:
                    await seat.receive()

    managed(made, work)


def test_a_machine_that_dies_under_a_shell_ends_it_at_once(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the question whether it goes down is never answered."""

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        session = (await manager.find(id)).session
        seat = Seat(session, Login(user="learner"), 24, 80)
        await seat.sit_down()
        await read_until(seat, b"$ ")
        monkeypatch.setattr(Seat, "_says_it_goes_down", lambda self: anyio.sleep_forever())
        signal_vmm(session, signal.SIGKILL)
        with pytest.raises(MachineLost, match=f"{id} is failed"), anyio.fail_after(PATIENCE):
            while True:
                await seat.receive()
        report = await manager.answer("check", {})
        assert report["solved"] is False
        assert f"bugbox resume {id}" in report["checks"][0]["message"]

    managed(made, work)


@pytest.mark.parametrize(("answers", "told"), [((None, True), True), ((None, False), False)])
def test_systemd_is_asked_again_when_it_takes_too_long(
    made: World, monkeypatch: pytest.MonkeyPatch, answers: tuple[bool | None, ...], told: bool
) -> None:
    left = list(answers)

    async def goes_down(lifeline: object, timeout: float) -> bool | None:
        return left.pop(0)

    monkeypatch.setattr("bugbox.session.terminal.goes_down", goes_down)

    async def work(manager: Manager) -> None:
        session = (await manager.find(await start(made, manager))).session
        seat = Seat(session, Login(user="learner"), 24, 80)
        assert await seat._going_down() is told
        assert left == []

    managed(made, work)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (Result(status=0, signal=None, stdout=b"running\n", stderr=b""), False),
        (Result(status=1, signal=None, stdout=b"stopping\n", stderr=b""), True),
        (Result(status=None, signal=signal.SIGTERM, stdout=b"", stderr=b""), None),
        (Result(status=None, signal=None, stdout=b"", stderr=b"", timed_out=True), None),
    ],
)
def test_who_asks_while_all_are_ended_asks_again(result: Result, told: bool | None) -> None:
    lifeline: Any = SimpleNamespace(run=AsyncMock(return_value=result))
    assert anyio.run(goes_down, lifeline, 1.0) is told


def test_ps_shows_what_is_being_made_and_no_puzzle_for_a_bare_machine(made: World) -> None:
    made.write("ready.sh", '#!/bin/sh\n[ -e "$FAKE_ROOT/go" ]\n')

    async def work(manager: Manager) -> None:
        await manager.answer("start", {"image": "debian-12"})
        async with anyio.create_task_group() as group:
            group.start_soon(manager.answer, "start", {"puzzle": str(made.puzzle)})
            with anyio.fail_after(PATIENCE):
                while len(rows := await manager.answer("ps", {})) < 2:  # noqa: ASYNC110 (no event)
                    await anyio.sleep(0.01)
            bare, making = rows
            assert (bare["puzzle"], bare["state"]) == (None, "ready")
            assert (making["puzzle"], making["state"], making["making"]) == (
                "tiny",
                "booting",
                True,
            )
            group.cancel_scope.cancel()

    managed(made, work)


def test_hints_are_counted_from_one(made: World) -> None:
    async def work(manager: Manager) -> None:
        await start(made, manager)
        for n in (0, 99):
            with pytest.raises(NotFound, match=f"no hint {n}"):
                await manager.answer("hint", {"n": n})

    managed(made, work)
