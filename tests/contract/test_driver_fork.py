# SPDX-License-Identifier: Apache-2.0
"""What every driver must do that copies running machines."""

import asyncio
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_driver import Bed, bed

from bugbox.errors import OutOfResources
from bugbox.host.proc import Process
from bugbox.machine.driver import Machine
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.machine.qemu.migration import WHOLE_WITH_A_PAUSE
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.machine.template import Capture
from bugbox.session import chain
from bugbox.storage.memory import anonymous

__all__ = ["bed"]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def copies(bed: Bed) -> None:
    if not bed.driver.abilities.fork:
        pytest.skip("this driver copies no running machine")


FLUSH = ["sh", "-c", "sync; [ ! -w /proc/sys/vm/drop_caches ] || echo 3 >/proc/sys/vm/drop_caches"]
#: Holds a guest's memory in motion: its page cache, and processes that come and go.
BUSY = "while :; do find /usr -xdev -type f | head -n 2000 | xargs cat >/dev/null; done"


async def kept(machine: Machine, text: str) -> None:
    await machine.lifeline.put("/kept", text.encode())


async def found(machine: Machine) -> str:
    """Read it from the disk, not from the memory that was copied along."""
    await machine.lifeline.run(FLUSH, timeout=60)
    return (await machine.lifeline.get("/kept", limit=64)).decode()


async def captured(machine: Machine, state: int) -> tuple[MachineSpec, float]:
    """Copy a machine; return what a copy of it has to be, and how long it stood still."""
    before = machine.spec
    after = chain.switched(before, chain.new_overlays(before))
    chain.make_overlays(after)
    overlays = {drive.id: drive.path for drive in after.drives}
    wanted = Capture(state=state, overlays=overlays)
    await machine.capture(wanted)
    assert wanted.switched
    machine.spec = after
    return before, wanted.pause_ms


@contextmanager
def elsewhere(spec: MachineSpec, folder: Path) -> Iterator[MachineSpec]:
    """Describe a copy in folders of its own."""
    runtime = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    folder.mkdir()
    own = dataclasses.replace(spec, id="two", root=folder, runtime=runtime)
    own = dataclasses.replace(own, drives=chain.linked(spec.drives, spec.root, folder))
    own = chain.switched(own, chain.new_overlays(own))
    chain.link(spec.drives, spec.root, folder)
    chain.make_overlays(own)
    try:
        yield own
    finally:
        shutil.rmtree(runtime)


def test_a_running_machine_is_copied_and_both_go_on(bed: Bed, tmp_path: Path) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await kept(machine, "one")
        state = anonymous("test")
        before, pause_ms = await captured(machine, state)
        assert 0 < pause_ms < 5000  # what it is on a quiet host, `make bench` measures
        assert machine.state is State.READY
        assert states == [State.READY]
        await kept(machine, "two")
        os.lseek(state, 0, os.SEEK_SET)
        begun: list[Process] = []
        with elsewhere(before, tmp_path / "copy") as spec:
            copy = await bed.driver.start_copy(spec, state, begun.append)
            os.close(state)
            try:
                await copy.wait_lifeline()
                await copy.reached(State.READY)
                assert await found(copy) == "one"
                await kept(copy, "three")
                assert await found(machine) == "two"
                assert await found(copy) == "three"
                hello = machine.lifeline.hello, copy.lifeline.hello
                assert hello[0] and hello[1] and hello[0].boot_id == hello[1].boot_id
            finally:
                await copy.stop(1.0)
        assert not begun[0].alive
        assert await found(machine) == "two"

    bed.with_machine(test)


def test_images_become_one_again_under_a_running_machine(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        for number in range(3):
            await kept(machine, str(number))
            await machine.lifeline.put(f"/kept{number}", str(number).encode())
            state = anonymous("test")
            await captured(machine, state)
            os.close(state)
        for drive in machine.spec.drives:
            images = chain.mergeable(machine.spec, drive, ())
            assert len(images) == 3
            await machine.merge(drive.id, images)
            machine.spec = chain.merged(machine.spec, images)
            for image in images[:-1]:
                image.unlink()
        assert await found(machine) == "2"
        got = [await machine.lifeline.get(f"/kept{number}", limit=64) for number in range(3)]
        assert got == [b"0", b"1", b"2"]
        state = anonymous("test")
        await captured(machine, state)
        os.close(state)
        assert await found(machine) == "2"

    bed.with_machine(test)


def test_a_full_disk_leaves_the_machine_as_it_was(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await kept(machine, "one")
        state = os.open("/dev/full", os.O_RDWR)
        wanted = Capture(state=state, overlays={})
        with pytest.raises(OutOfResources):
            await machine.capture(wanted)
        os.close(state)
        assert machine.state is State.READY
        assert await found(machine) == "one"
        state = anonymous("test")
        await captured(machine, state)
        os.close(state)
        assert await found(machine) == "one"

    bed.with_machine(test)


def test_a_copy_given_up_leaves_the_machine_running(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await kept(machine, "one")
        state = anonymous("test")
        wanted = Capture(state=state, overlays={})
        copying = asyncio.create_task(machine.capture(wanted))
        await asyncio.sleep(0)
        if isinstance(machine, QemuMachine):
            while machine._migration != "active":  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
        assert not wanted.switched
        os.close(state)
        assert machine.state is State.READY
        assert await found(machine) == "one"

    bed.with_machine(test)


def test_who_copied_it_died_while_it_stood_still(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        if not isinstance(machine, QemuMachine):
            pytest.skip("a fake machine does not stand still for it")
        await kept(machine, "one")
        monitor = machine._monitor
        await monitor.execute("migrate-set-capabilities", {"capabilities": WHOLE_WITH_A_PAUSE})
        state = anonymous("test")
        await monitor.execute_with(state, "getfd", {"fdname": "capture"})
        await monitor.execute("migrate", {"uri": "fd:capture"})
        async with asyncio.timeout(60):
            while await monitor.status() == "running":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        os.close(state)
        await machine.release()
        adopted = await bed.driver.adopt(bed.spec, machine.process)
        assert adopted.state is State.READY
        assert await found(adopted) == "one"
        await adopted.stop(1.0)

    bed.with_machine(test)


@pytest.mark.skipif(os.environ.get("BUGBOX_TEST_ALL") != "1", reason="long: BUGBOX_TEST_ALL=1")
def test_copies_of_a_busy_machine_are_whole(bed: Bed, tmp_path: Path) -> None:
    """What is written while it is copied is in the copy: one in eight panicked when it was not."""

    async def test(machine: Machine, states: list[State]) -> None:
        await machine.lifeline.command(["sh", "-c", BUSY])
        for number in range(16):
            await kept(machine, str(number))
            state = anonymous("test")
            before, pause_ms = await captured(machine, state)
            print(f"stood still for {pause_ms:.0f} ms")
            os.lseek(state, 0, os.SEEK_SET)
            with elsewhere(before, tmp_path / f"copy{number}") as spec:
                copy = await bed.driver.start_copy(spec, state, lambda process: None)
                os.close(state)
                try:
                    await copy.wait_lifeline()
                    await copy.reached(State.READY)
                    assert await found(copy) == str(number)
                finally:
                    await copy.stop(0.0)

    if bed.driver.name != "qemu":
        pytest.skip("a fake machine has no memory of its own")
    bed.with_machine(test)
