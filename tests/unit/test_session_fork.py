# SPDX-License-Identifier: Apache-2.0
"""Copies of running sessions, with fake machines: forks, checks in clones, checkpoints."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import World, read_until, run, started, until, world

from bugbox.errors import GuestError, NotFound, OutOfResources, StateError, UserError
from bugbox.machine import fake
from bugbox.machine.fake import FakeDriver, FakeMachine
from bugbox.machine.template import Capture
from bugbox.session import checkpoint as checkpointing
from bugbox.session import checkpoints
from bugbox.session import fork as forking
from bugbox.session.identity import clock_offset, set_clock
from bugbox.session.manager import Manager
from bugbox.session.record import Phase, load
from bugbox.session.session import Session
from bugbox.session.terminal import Login, Seat

CLONE_CHECKS = """\
checks:
  - {id: made, title: The file is there, run: checks/made.sh}
  - {id: lasts, title: Also after a reboot, run: checks/lasts.sh, where: clone, after: reboot}
  - {id: wild, title: In a clone, run: checks/wild.sh, where: clone}
"""
LASTS = '#!/bin/sh\n[ "$(tail -n 1 "$FAKE_ROOT/log")" = boot ] && rm -r "$FAKE_ROOT/made"\n'
WILD = '#!/bin/sh\n[ -e "$FAKE_ROOT/made" ] && rm "$FAKE_ROOT/made"\n'


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
            await manager.answer("stop", {"all": True})
        assert made.leftovers() == []

    run(main)


def files(made: World, id: str) -> set[str]:
    return {path.name for path in made.home.session(id).root.iterdir()}


def guest(made: World, id: str, name: str) -> Path:
    return made.home.session(id).root / "fake" / name


def drives(made: World, id: str) -> list[str]:
    """The images of the root, the topmost first."""
    found = []
    part: Mapping[str, Any] | None = load(made.home, id).spec["drives"][0]
    while part is not None:
        found.append(Path(part["path"]).name)
        part = part["backing"]
    return found


def test_a_fork_is_a_session_of_its_own_that_goes_on_from_there(made: World) -> None:
    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        guest(made, one.id, "before").touch()
        answer = await manager.answer("fork", {"id": one.id})
        assert answer["of"] == one.id
        assert answer["pause_ms"] > 0
        assert answer["state"] == "ready"
        two = (await manager.find(answer["id"])).session
        guest(made, one.id, "after").touch()
        assert guest(made, two.id, "before").exists()
        assert not guest(made, two.id, "after").exists()
        record = load(made.home, two.id)
        assert record.phase is Phase.HANDED_OVER
        assert record.variants == load(made.home, one.id).variants
        # Nothing is run in it as in a new machine.
        assert made.log(two.id) == made.log(one.id)
        assert drives(made, one.id) == ["root.n1.qcow2", "disk.qcow2", "base.ext4"]
        assert drives(made, two.id) == ["root.n1.qcow2", "disk.qcow2", "base.ext4"]
        disks = [made.home.session(id).root / "disk.qcow2" for id in (one.id, two.id)]
        assert disks[0].samefile(disks[1])
        assert (await two.resume())["state"] == "ready"
        await manager.answer("stop", {"ids": [one.id]})
        assert (await manager.answer("check", {"id": two.id}))["solved"] is False
        guest(made, two.id, "made").touch()
        assert (await manager.answer("check", {"id": two.id}))["solved"] is True

    managed(made, work)


def test_a_fork_whose_identity_fails_is_gone_and_its_original_runs_on(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise GuestError("no entropy")

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        monkeypatch.setattr(forking, "rejuvenate", broken)
        with pytest.raises(GuestError, match="no entropy"):
            await manager.answer("fork", {"id": one.id})
        assert [row["id"] for row in await manager.answer("ps", {})] == [one.id]
        assert len(made.processes()) == 1
        assert (await manager.answer("check", {"id": one.id}))["solved"] is False

    managed(made, work)


def test_a_clock_that_is_set_before_the_copy_stays_set(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Much may happen between a fork's first question and its copy, a learner's `date -s` too."""
    change, hour = Session.change, 3600 * 10**9

    @asynccontextmanager
    async def later(self: Session) -> AsyncIterator[None]:
        async with change(self):
            assert self.machine is not None
            now = await clock_offset(self.machine.lifeline)
            await set_clock(self.machine.lifeline, now + hour)
            yield

    async def work(manager: Manager) -> None:
        one = await started(made, manager)

        async def offset(session: Session) -> int:
            return round(await clock_offset(await session.lifeline()) / hour)

        with monkeypatch.context() as patched:
            patched.setattr(Session, "change", later)
            two = (await manager.find((await manager.answer("fork", {"id": one.id}))["id"])).session
            assert (await offset(one), await offset(two)) == (1, 1)
            await manager.answer("checkpoint", {"id": one.id})
        assert await offset(one) == 2
        (kept,) = checkpoints.kept(one.ledger.paths)
        assert round(kept.clock_offset_ns / hour) == 2
        await set_clock(await one.lifeline(), 0)
        await manager.answer("undo", {"id": one.id})
        assert await offset(one) == 2

    managed(made, work)


@pytest.mark.parametrize("switched", [False, True])
def test_a_copy_that_fails_leaves_the_record_true(
    made: World, monkeypatch: pytest.MonkeyPatch, switched: bool
) -> None:
    async def capture(self: FakeMachine, wanted: Capture) -> None:
        # Before anything is switched, the record names what would be on top.
        assert drives(made, self.spec.id)[0] == "root.n1.qcow2"
        assert "root.n1.qcow2" in files(made, self.spec.id)
        wanted.switched = switched
        raise OutOfResources("no space is left for a copy of the machine")

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        monkeypatch.setattr(FakeMachine, "capture", capture)
        with pytest.raises(OutOfResources):
            await manager.answer("checkpoint", {"id": one.id})
        assert ("root.n1.qcow2" in drives(made, one.id)) is switched
        assert ("root.n1.qcow2" in files(made, one.id)) is switched
        assert (await manager.answer("checkpoint", {"id": one.id, "list": True}))[
            "checkpoints"
        ] == []
        assert (await manager.answer("check", {"id": one.id}))["solved"] is False

    managed(made, work)


def test_no_space_for_a_checkpoint(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        monkeypatch.setattr(fake, "write_all", full)
        with pytest.raises(OutOfResources, match="no space is left"):
            await manager.answer("checkpoint", {"id": one.id})
        monkeypatch.undo()
        made.wire()
        assert (await manager.answer("checkpoint", {"id": one.id}))["label"] == "1"

    managed(made, work)


def with_clone_checks(made: World) -> None:
    text = (made.puzzle / "puzzle.yaml").read_text()
    before, after = text.split("checks:\n")
    hints = after[after.index("hints:") :]
    made.write("puzzle.yaml", before + CLONE_CHECKS + hints)
    made.write("checks/lasts.sh", LASTS)
    made.write("checks/wild.sh", WILD)


def test_checks_in_clones_leave_no_trace(made: World) -> None:
    with_clone_checks(made)

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        before = made.log(one.id)
        answer = await manager.answer("check", {"id": one.id})
        assert [each["status"] for each in answer["checks"]] == ["failed", "failed", "failed"]
        guest(made, one.id, "made").touch()
        for _ in range(3):
            answer = await manager.answer("check", {"id": one.id})
            assert answer["solved"] is True, answer
        assert guest(made, one.id, "made").exists()
        assert made.log(one.id) == before
        assert len(made.processes()) == 1
        assert [path.name for path in made.home.sessions.iterdir()] == [one.id]
        # However many copies were made, the images are few.
        assert len(drives(made, one.id)) <= 4
        on_disk = {name for name in files(made, one.id) if name.endswith(".qcow2")}
        assert on_disk == {*drives(made, one.id)} - {"base.ext4"}

    managed(made, work)


def test_a_clone_that_fails_says_nothing_about_the_learner(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clone_checks(made)

    async def start_copy(self: FakeDriver, *_: object) -> FakeMachine:
        raise GuestError("QEMU did not start")

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        guest(made, one.id, "made").touch()
        monkeypatch.setattr(FakeDriver, "start_copy", start_copy)
        answer = await manager.answer("check", {"id": one.id})
        assert answer["solved"] is None
        assert [each["status"] for each in answer["checks"]] == ["passed", "broken", "broken"]
        assert answer["checks"][1]["message"] == "could not be checked: QEMU did not start"
        assert [path.name for path in made.home.sessions.iterdir()] == [one.id]

    managed(made, work)


def test_a_machine_that_no_longer_answers_is_not_solved_in_a_clone_either(made: World) -> None:
    with_clone_checks(made)

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        assert one.machine is not None
        one.machine.process.kill()
        await until(lambda: one.state == "failed")
        answer = await manager.answer("check", {"id": one.id})
        assert answer["solved"] is False

    managed(made, work)


def test_a_driver_that_cannot_copy_skips_them(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with_clone_checks(made)
    can = FakeDriver().abilities

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        guest(made, one.id, "made").touch()
        answer = await manager.answer("check", {"id": one.id})
        assert answer["solved"] is None
        assert [each["status"] for each in answer["checks"]] == ["passed", "skipped", "skipped"]
        with pytest.raises(StateError, match="cannot be copied"):
            await manager.answer("fork", {"id": one.id})

    from dataclasses import replace

    cannot = replace(can, fork=False)
    monkeypatch.setattr(FakeDriver, "abilities", property(lambda self: cannot))
    managed(made, work)


def test_undo_goes_back_and_the_terminals_are_told(made: World) -> None:
    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        with pytest.raises(NotFound, match="no checkpoint"):
            await manager.answer("undo", {"id": one.id})
        guest(made, one.id, "kept").write_text("before")
        first = await manager.answer("checkpoint", {"id": one.id})
        assert first["label"] == "1"
        assert first["pause_ms"] > 0
        named = await manager.answer("checkpoint", {"id": one.id, "label": "clean"})
        assert named["label"] == "clean"
        state = made.home.session(one.id).checkpoints / "clean" / "state"
        assert state.stat().st_mode & 0o777 == 0o600
        listing = await manager.answer("checkpoint", {"id": one.id, "list": True})
        assert [each["label"] for each in listing["checkpoints"]] == ["clean", "1"]
        seat = Seat(one, Login(user="learner"), 24, 80)
        await seat.sit_down()
        for _ in range(2):
            guest(made, one.id, "kept").write_text("after")
            guest(made, one.id, "new").touch()
            seen: list[bytes] = []

            async def read(into: list[bytes]) -> None:
                into.append(await read_until(seat, b"the machine is back"))

            async with anyio.create_task_group() as group:
                group.start_soon(read, seen)
                answer = await manager.answer("undo", {"id": one.id})
            assert (answer["label"], answer["state"]) == ("clean", "ready")
            assert guest(made, one.id, "kept").read_text() == "before"
            assert not guest(made, one.id, "new").exists()
            assert "going back to checkpoint clean" in seen[0].decode()
        await manager.answer("undo", {"id": one.id, "label": "1"})
        with pytest.raises(NotFound, match="no checkpoint none"):
            await manager.answer("undo", {"id": one.id, "label": "none"})
        await seat.leave()
        on_disk = {name for name in files(made, one.id) if name.endswith(".qcow2")}
        assert on_disk == {"disk.qcow2", "root.n1.qcow2", drives(made, one.id)[0]}
        # A fresh machine has none.
        await manager.answer("reset", {"id": one.id})
        listing = await manager.answer("checkpoint", {"id": one.id, "list": True})
        assert listing["checkpoints"] == []
        assert drives(made, one.id) == ["disk.qcow2", "base.ext4"]
        assert {name for name in files(made, one.id) if ".qcow2" in name} == {"disk.qcow2"}

    managed(made, work)


def test_labels_and_how_many(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointing, "MOST", 2)

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        for label in ("../x", ".x", "", "x" * 33):
            with pytest.raises(UserError, match="label"):
                await manager.answer("checkpoint", {"id": one.id, "label": label})
        for label in ("a", "b", "b"):
            await manager.answer("checkpoint", {"id": one.id, "label": label})
        with pytest.raises(StateError, match="2 checkpoints"):
            await manager.answer("checkpoint", {"id": one.id})

    managed(made, work)


def test_a_way_back_that_fails_leaves_a_session_to_resume(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start_copy(self: FakeDriver, *_: object) -> FakeMachine:
        raise GuestError("QEMU did not load it")

    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        await manager.answer("checkpoint", {"id": one.id})
        with monkeypatch.context() as broken:
            broken.setattr(FakeDriver, "start_copy", start_copy)
            with pytest.raises(GuestError, match="did not load"):
                await manager.answer("undo", {"id": one.id})
        assert one.state == "failed"
        assert (await manager.answer("resume", {"id": one.id}))["state"] == "ready"

    managed(made, work)


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def another_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["checkpoints/1/state", "checkpoints/1/about.json", "disk.qcow2"])
@pytest.mark.parametrize("spoil", [shorter, another_byte, Path.unlink])
def test_a_spoilt_checkpoint_is_refused_and_the_machine_runs_on(
    made: World, file: str, spoil: Callable[[Path], None]
) -> None:
    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        await manager.answer("checkpoint", {"id": one.id})
        before = files(made, one.id), drives(made, one.id), made.processes()
        path = made.home.session(one.id).root / file
        whole = path.read_bytes()
        spoil(path)
        for label in (None, "1"):
            with pytest.raises(StateError, match=r"checkpoint 1: .*; the machine is as it was"):
                await manager.answer("undo", {"id": one.id, "label": label})
        assert one.state == "ready"
        path.write_bytes(whole)
        assert (files(made, one.id), drives(made, one.id), made.processes()) == before
        assert (await manager.answer("check", {"id": one.id}))["solved"] is False
        # It was the file, and nothing else.
        assert (await manager.answer("undo", {"id": one.id}))["label"] == "1"

    managed(made, work)


def test_a_checkpoint_is_removed_and_its_images_with_it(made: World) -> None:
    async def work(manager: Manager) -> None:
        one = await started(made, manager)
        for label in ("a", "b", "c"):
            await manager.answer("checkpoint", {"id": one.id, "label": label})
        about = made.home.session(one.id).checkpoints / "b" / "about.json"
        another_byte(about)
        listing = await manager.answer("checkpoint", {"id": one.id, "list": True})
        assert [each["label"] for each in listing["checkpoints"]] == ["c", "a"]
        assert listing["damaged"] == ["b"]
        # Which one is the newest, nobody knows.
        with pytest.raises(StateError, match="checkpoint b"):
            await manager.answer("undo", {"id": one.id})
        with pytest.raises(NotFound, match="no checkpoint d") as caught:
            await manager.answer("checkpoint", {"id": one.id, "remove": "d"})
        assert caught.value.hint == "one of c, a"
        for label in ("b", "c"):
            answer = await manager.answer("checkpoint", {"id": one.id, "remove": label})
            assert answer == {"id": one.id, "removed": label}
        assert [*about.parent.parent.iterdir()] == [about.parent.with_name("a")]
        # What was kept only for those two is one image now.
        assert len(drives(made, one.id)) == 4
        on_disk = {name for name in files(made, one.id) if name.endswith(".qcow2")}
        assert on_disk == {*drives(made, one.id)} - {"base.ext4"}
        assert (await manager.answer("undo", {"id": one.id}))["label"] == "a"

    managed(made, work)


DYING = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from session_world import World, run
from bugbox.machine.fake import FakeDriver, FakeMachine
from bugbox.session import chain, checkpoint, checkpoints, fork
from bugbox.session.manager import Manager

def dies(*_, **__):
    os._exit(9)

async def main():
    world = World(Path({folder!r}))
    world.wire()
    async with Manager(world.home, world.settings) as manager:
        id = (await manager.answer("start", {{"puzzle": str(world.puzzle)}}))["id"]
        (world.home.session(id).root / "fake" / "kept").write_text("kept")
        await manager.answer("checkpoint", {{"id": id}})
        setattr({where}, {what!r}, dies)
        await manager.answer({verb!r}, {{"id": id}})

run(main)
"""


@pytest.mark.parametrize(
    ("verb", "where", "what"),
    [
        ("fork", "fork", "_take_disk"),
        ("fork", "chain", "link"),
        ("fork", "fork", "wake"),
        ("checkpoint", "FakeMachine", "capture"),
        ("checkpoint", "checkpoints", "publish"),
        ("undo", "FakeDriver", "start_copy"),
        ("undo", "checkpoint", "wake"),
    ],
)
def test_kill_9_in_the_middle_leaves_the_session_and_nothing_else(
    made: World, verb: str, where: str, what: str
) -> None:
    path = [str(Path(__file__).parent), *sys.path]
    script = DYING.format(path=path, folder=str(made.folder), where=where, what=what, verb=verb)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 9, done.stderr.decode()

    async def work(manager: Manager) -> None:
        (row,) = await manager.answer("ps", {})
        assert [path.name for path in made.home.sessions.iterdir()] == [row["id"]]
        one = (await manager.find(row["id"])).session
        if row["state"] != "ready":
            assert verb == "undo", row
            await one.resume()
        assert len(made.processes()) == 1
        assert (await manager.answer("check", {"id": one.id}))["solved"] is False
        assert guest(made, one.id, "kept").read_text() == "kept"
        # What it left half-made is in nobody's way.
        assert (await manager.answer("checkpoint", {"id": one.id}))["label"] == "2"
        await manager.answer("undo", {"id": one.id, "label": "1"})
        needed = set(drives(made, one.id))
        for label in ("1", "2"):
            about = made.home.session(one.id).checkpoints / label / "about.json"
            part = json.loads(about.read_text())["about"]["spec"]["drives"][0]
            while part is not None:
                needed.add(Path(part["path"]).name)
                part = part["backing"]
        assert {name for name in files(made, one.id) if name.endswith(".qcow2")} <= needed

    managed(made, work)


REPLACING = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from session_world import World, run
from bugbox.session import checkpoints
from bugbox.session.manager import Manager

real = checkpoints.{what}

def dies(path, *rest, **options):
    if checkpoints.shutil is not {owner} or (path.name == ".going" and path.exists()):
        os._exit(9)
    return real(path, *rest, **options)

async def main():
    world = World(Path({folder!r}))
    world.wire()
    async with Manager(world.home, world.settings) as manager:
        id = (await manager.answer("start", {{"puzzle": str(world.puzzle)}}))["id"]
        kept = world.home.session(id).root / "fake" / "kept"
        kept.write_text("first")
        await manager.answer("checkpoint", {{"id": id, "label": "a"}})
        kept.write_text("second")
        setattr({owner}, {name!r}, dies)
        await manager.answer("checkpoint", {{"id": id, "label": "a"}})

run(main)
"""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("publish", "first"),
        ("move_into_place", "first"),
        ("_take_away", "second"),
        ("shutil.rmtree", "second"),
    ],
)
def test_kill_9_while_a_checkpoint_is_replaced_leaves_the_old_or_the_new_one(
    made: World, what: str, expected: str
) -> None:
    owner, _, name = f"checkpoints.{what}".rpartition(".")
    script = REPLACING.format(
        path=[str(Path(__file__).parent), *sys.path],
        folder=str(made.folder),
        what=what,
        owner=owner,
        name=name,
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 9, done.stderr.decode()

    async def work(manager: Manager) -> None:
        (row,) = await manager.answer("ps", {})
        id = row["id"]
        listing = await manager.answer("checkpoint", {"id": id, "list": True})
        assert [each["label"] for each in listing["checkpoints"]] == ["a"]
        assert listing["damaged"] == []
        await manager.answer("undo", {"id": id})
        assert guest(made, id, "kept").read_text() == expected
        # The next one clears up.
        guest(made, id, "kept").write_text("third")
        await manager.answer("checkpoint", {"id": id, "label": "a"})
        assert len([*made.home.session(id).checkpoints.iterdir()]) == 1
        await manager.answer("undo", {"id": id})
        assert guest(made, id, "kept").read_text() == "third"

    managed(made, work)
