# SPDX-License-Identifier: Apache-2.0
"""Templates and clones over the fake driver: who gets one, what differs, what a failure leaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import MANIFEST, World, run, world

from bugbox.errors import GuestError, HostError
from bugbox.events import Event, Notice, listening
from bugbox.host import proc
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.session import template
from bugbox.session.cloning import Cloning, ingredients
from bugbox.session.identity import clock_offset, set_clock
from bugbox.session.manager import Manager
from bugbox.session.plan import Plan
from bugbox.session.provision import provision
from bugbox.session.reaper import give_back
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Stored


@asynccontextmanager
async def booted(made: World) -> AsyncIterator[Lifeline]:
    """The lifeline of a fake machine that is ready."""
    ledger, machine = await provision(made.plan(), made.parts, made.host, Stopwatch())
    try:
        yield machine.lifeline
    finally:
        await machine.stop(0.0)
        give_back(ledger)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, templates="on") as it:
        it.wire()
        it.write("puzzle.yaml", MANIFEST + "machine: {memory: 128MiB}\n")
        yield it


def make(made: World, plan: Plan | None = None) -> Stored:
    async def work() -> Stored:
        stored = await Cloning(made.home).make(plan or made.plan(), made.parts, made.host)
        assert stored is not None
        return stored

    return run(work)


def start(made: World, n: int = 1, **args: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Start `n` sessions in a process of their own; answers, notices."""
    told: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    async def work() -> list[dict[str, Any]]:
        async with Manager(made.home, made.settings) as manager:
            with listening(hear):
                return [
                    await manager.answer("start", {"puzzle": str(made.puzzle), **args})
                    for _ in range(n)
                ]

    return run(work), told


def guest(made: World, id: str, path: str) -> str:
    return (made.home.session(id).root / "fake" / path).read_text().strip()


def test_without_a_template_it_is_booted(made: World) -> None:
    (answer,), told = start(made)
    assert answer["clone"] is False
    assert guest(made, answer["id"], "etc/hostname") == answer["id"]
    assert told == []


def test_clones_are_somebody_of_their_own(made: World) -> None:
    make(made)
    answers, told = start(made, 3)
    assert [a["clone"] for a in answers] == [True] * 3
    assert told == []
    ids = [a["id"] for a in answers]
    assert [guest(made, id, "etc/hostname") for id in ids] == ids
    assert len({guest(made, id, "etc/machine-id") for id in ids}) == 3
    # What ran in the template did not run again.
    # session.sh may set up what ready.sh asks for, so neither ran in the template.
    assert [made.log(id) for id in ids] == [["boot", "break", "session", "ready"]] * 3


def test_without_session_sh_nothing_runs_again(made: World) -> None:
    (made.puzzle / "session.sh").unlink()
    make(made)
    (answer,), _ = start(made)
    assert answer["clone"] is True
    assert made.log(answer["id"]) == ["boot", "break", "ready"]


def test_cold_boots(made: World) -> None:
    make(made)
    (answer,), _ = start(made, cold=True)
    assert answer["clone"] is False


def test_making_leaves_nothing_but_the_template(made: World) -> None:
    stored = make(made)
    assert made.leftovers() == []
    assert [path.name for path in made.home.templates.iterdir()] == [stored.name]
    assert list(made.home.tmp.glob("template*")) == []
    assert make(made).name == stored.name
    # The header says where the disk below is, for people and tools.
    argv = ["qemu-img", "info", "--output=json", stored.empty_disk]
    told = json.loads(proc.run(argv, timeout=30).stdout)
    assert told["full-backing-filename"] == str(stored.disk)


def test_a_puzzle_that_names_its_machine_keeps_the_name(made: World) -> None:
    made.write(
        "break.sh",
        '#!/bin/sh\necho break >> "$FAKE_ROOT/log"\n'
        'echo mail >"$FAKE_ROOT/etc/hostname"; echo mail >"$FAKE_ROOT/proc/sys/kernel/hostname"\n',
    )
    make(made)
    (answer,), _ = start(made)
    assert answer["clone"] is True
    assert guest(made, answer["id"], "etc/hostname") == "mail"


@pytest.mark.parametrize("answers", ["first", "last"])
@pytest.mark.parametrize("call", ["entropy", "identity", "clock"])
def test_a_clone_that_cannot_be_rejuvenated_is_not_published(
    made: World, call: str, answers: str
) -> None:
    if answers == "first":  # a shell's answer alone lets nobody in
        (made.puzzle / "session.sh").unlink()
    made.write("break.sh", f'#!/bin/sh\necho {call} > "$FAKE_ROOT/refuse"\n')
    with pytest.raises(GuestError):
        make(made)
    assert list(made.home.templates.iterdir()) == []
    assert made.leftovers() == []


def test_a_template_that_cannot_be_made_is_not_tried_at_every_start(made: World) -> None:
    made.write("break.sh", '#!/bin/sh\necho entropy > "$FAKE_ROOT/refuse"\n')

    async def work() -> None:
        cloning = Cloning(made.home)
        with pytest.raises(GuestError):
            await cloning.make(made.plan(), made.parts, made.host)
        assert await cloning.make(made.plan(), made.parts, made.host) is None

    run(work)


def test_a_clock_that_a_puzzle_set_wrong_stays_wrong_by_as_much(made: World) -> None:
    hour = 3600 * 10**9

    async def offset(wrong_ns: int) -> int:
        async with booted(made) as lifeline:
            await set_clock(lifeline, wrong_ns)
            return await clock_offset(lifeline)

    assert run(offset, 0) == 0
    assert run(offset, 10**8) == 0  # the clock of a machine that was slow to be told
    assert abs(run(offset, -hour) + hour) < 10**9


def test_an_answer_that_was_late_does_not_leave_the_clock_ahead() -> None:
    class Slow:
        """Takes half a second for the first, as a guest does that has other things to do."""

        def __init__(self) -> None:
            self.ahead: list[int] = []

        async def clock(self, nanoseconds: int) -> int:
            if not self.ahead:
                await anyio.sleep(0.5)
            self.ahead.append(nanoseconds - time.time_ns())
            return 0

    guest = Slow()
    run(set_clock, guest, 0)
    assert guest.ahead[0] < -400e6
    assert abs(guest.ahead[-1]) < 50e6


def spoil(stored: Stored, name: str, change: str) -> None:
    path = stored.folder / name
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    if change == "missing":
        path.unlink()
    elif change == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def test_a_spoilt_template_is_seen(made: World, tmp_path: Path) -> None:
    stored = make(made)
    template.verify(stored)
    for name in ("ram", "state", "disk.qcow2", "clone.qcow2"):
        for change in ("missing", "truncated", "a byte"):
            copy = tmp_path / "copy"
            shutil.copytree(stored.folder, copy)
            spoilt = dataclasses.replace(stored, folder=copy)
            spoil(spoilt, name, change)
            with pytest.raises((HostError, OSError)):
                template.verify(spoilt)
            shutil.rmtree(copy)


def test_a_spoilt_template_is_refused_and_the_machine_booted(made: World) -> None:
    stored = make(made)
    spoil(stored, "ram", "a byte")
    answers, told = start(made, 2)
    assert [a["clone"] for a in answers] == [False, False]
    assert len(told) == 1
    assert "booted instead" in told[0]
    assert template.find(made.home, stored.manifest.key) is None


def test_one_that_is_spoilt_after_it_was_adopted_is_refused_too(made: World) -> None:
    stored = make(made)

    async def work() -> list[bool]:
        async with Manager(made.home, made.settings) as manager:
            first = await manager.answer("start", {"puzzle": str(made.puzzle)})
            spoil(stored, "disk.qcow2", "a byte")
            second = await manager.answer("start", {"puzzle": str(made.puzzle)})
            return [first["clone"], second["clone"]]

    assert run(work) == [True, False]


def test_what_shapes_a_template_is_in_its_key(made: World) -> None:
    async def mixed(plan: Plan) -> dict[str, str]:
        return await ingredients(plan, made.parts, made.host)

    first = run(mixed, made.plan())
    assert first == run(mixed, made.plan())
    assert first != run(mixed, made.plan(mem_mib=512))
    assert first != run(mixed, made.plan(user="root"))
    made.write("break.sh", "#!/bin/sh\ntrue\n")
    assert first["break.sh"] != run(mixed, made.plan())["break.sh"]


def test_a_used_template_is_not_collected(made: World) -> None:
    stored = make(made)
    (answer,), _ = start(made)
    template.suspect(stored, "a test")
    assert template.collect(made.home, 0) == []

    async def stop() -> None:
        async with Manager(made.home, made.settings) as manager:
            await manager.answer("stop", {"ids": [answer["id"]]})

    run(stop)
    assert len(template.collect(made.home, 1 << 40)) == 1
    assert list(made.home.templates.iterdir()) == []


def test_a_leased_template_is_not_collected(made: World) -> None:
    stored = make(made)
    adopted = template.adopt(stored)
    try:
        with adopted.leased():
            assert template.collect(made.home, 0) == []
        assert len(template.collect(made.home, 0)) == 1
        with pytest.raises(HostError), adopted.leased():
            pass
    finally:
        adopted.close()


def test_the_one_unused_for_the_longest_time_goes_first(made: World) -> None:
    old = make(made)
    new = make(made, dataclasses.replace(made.plan(), mem_mib=64))
    adopted = template.adopt(old)
    with adopted.leased():
        pass
    adopted.close()
    size = max(template.file.allocated(each.folder) for each in (old, new))
    assert [new.name] == [line.split()[1] for line in template.collect(made.home, size)]
