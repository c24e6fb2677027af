# SPDX-License-Identifier: Apache-2.0
"""A build machine stands by for one build; whatever becomes of it, a build has a machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from session_world import PATIENCE, World, run, world

from bugbox.machine.fake import FakeDriver
from bugbox.machine.state import State
from bugbox.session import resident as resident_module
from bugbox.session.build_machine import Parts
from bugbox.session.resident import Resident

SIZE = 64 << 20


class Rehearsal:
    """In place of the real one, which needs a real guest."""

    def __init__(self) -> None:
        self.count = 0
        self.begun = threading.Event()
        self.endless = False

    async def __call__(self, *_: Any) -> None:
        self.count += 1
        self.begun.set()
        if self.endless:
            await anyio.sleep(3600)


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    made = Rehearsal()
    monkeypatch.setattr(resident_module, "rehearse", made)
    monkeypatch.setattr(resident_module, "BUILDER", "fake")
    return made


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        found.wire()
        yield found


@pytest.fixture
def resident() -> Iterator[Resident]:
    found = Resident()
    yield found
    found.close()


def parts_of(made: World) -> Parts:
    base = made.parts
    return Parts(
        home=made.home,
        settings=made.settings,
        image=base.image,
        kernel=base.kernel,
        initrd=base.initrd,
        driver=FakeDriver(),
    )


def claim(made: World, resident: Resident, size: int = SIZE) -> State | None:
    """Build as far as it goes without a guest; in what state the machine was."""
    to = made.folder / "made.qcow2"

    async def work() -> State | None:
        async with resident.claimed(parts_of(made), size, to) as machine:
            return machine.state if machine is not None else None

    return run(work)


def test_it_serves_one_build(made: World, resident: Resident, rehearsal: Rehearsal) -> None:
    assert claim(made, resident) is None
    resident.fill(parts_of(made), SIZE)
    assert claim(made, resident) is State.READY
    assert (made.folder / "made.qcow2").stat().st_size
    assert claim(made, resident) is None
    assert made.leftovers() == [] and rehearsal.count == 1


def test_it_is_made_once(made: World, resident: Resident, rehearsal: Rehearsal) -> None:
    for _ in range(3):
        resident.fill(parts_of(made), SIZE)
    assert claim(made, resident) is State.READY and rehearsal.count == 1


def test_one_of_other_parts_serves_nobody(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    resident.fill(parts_of(made), SIZE)
    assert resident.stands_by
    assert claim(made, resident, 2 * SIZE) is None
    resident.fill(parts_of(made), 2 * SIZE)
    assert claim(made, resident, 2 * SIZE) is State.READY and rehearsal.count == 2
    other = replace(parts_of(made), initrd=made.folder / "other")
    resident.fill(other, SIZE)
    assert claim(made, resident) is None
    resident.close()
    assert made.leftovers() == []


@pytest.mark.usefixtures("rehearsal")
def test_one_that_died_is_forgotten(made: World, resident: Resident) -> None:
    resident.fill(parts_of(made), SIZE)
    assert resident.stands_by
    (folder,) = made.home.sessions.iterdir()
    assert folder.name.startswith("build-standby-")
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)
    assert claim(made, resident) is None
    assert made.leftovers() == []


def test_the_end_does_not_wait_for_it(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    rehearsal.endless = True
    resident.fill(parts_of(made), SIZE)
    assert rehearsal.begun.wait(PATIENCE)
    resident.close()
    assert made.leftovers() == []
    resident.fill(parts_of(made), SIZE)
    assert made.leftovers() == []


def test_other_parts_do_not_wait_for_it(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    rehearsal.endless = True
    resident.fill(parts_of(made), SIZE)
    assert rehearsal.begun.wait(PATIENCE)
    assert claim(made, resident, 2 * SIZE) is None
    # Nor does one for them: what nobody wants any more is not finished.
    rehearsal.endless = False
    resident.fill(parts_of(made), 2 * SIZE)
    assert claim(made, resident, 2 * SIZE) is State.READY
    assert made.leftovers() == [] and rehearsal.count == 2


def test_the_wait_for_it_can_be_given_up(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    rehearsal.endless = True
    resident.fill(parts_of(made), SIZE)
    assert rehearsal.begun.wait(PATIENCE)

    async def work() -> bool:
        with anyio.move_on_after(0.2) as scope:
            async with resident.claimed(parts_of(made), SIZE, made.folder / "made.qcow2"):
                pytest.fail("it is not made")
        return scope.cancelled_caught

    assert run(work)
    resident.fill(parts_of(made), SIZE)
    assert rehearsal.count == 1, "it goes on being made"
    resident.close()
    assert made.leftovers() == []


def test_of_two_builds_at_once_one_has_it(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    resident.fill(parts_of(made), SIZE)
    had: list[bool] = []

    async def one(number: int) -> None:
        to = made.folder / f"{number}.qcow2"
        async with resident.claimed(parts_of(made), SIZE, to) as machine:
            had.append(machine is not None)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            for number in range(2):
                group.start_soon(one, number)

    run(work)
    assert sorted(had) == [False, True] and rehearsal.count == 1
    assert made.leftovers() == []


def test_one_that_cannot_be_made_is_no_harm(
    made: World, resident: Resident, rehearsal: Rehearsal
) -> None:
    image: Any = SimpleNamespace(rootfs=made.folder / "gone", name="debian-12", digest="0")
    resident.fill(replace(parts_of(made), image=image), SIZE)
    assert claim(made, resident) is None
    assert rehearsal.count == 0 and made.leftovers() == []
