# SPDX-License-Identifier: Apache-2.0
"""What every driver must do, the fake included: the same rows for each."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bugbox.config import Settings, load
from bugbox.errors import GuestError, MachineLost
from bugbox.host.proc import Process
from bugbox.image import store
from bugbox.machine.driver import Driver, Machine
from bugbox.machine.fake import FakeDriver
from bugbox.machine.firecracker import driver as firecracker
from bugbox.machine.firecracker.jail import jails_of
from bugbox.machine.qemu.driver import QemuDriver
from bugbox.machine.spec import Drive, Kernel, MachineSpec
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.storage.disk import create_overlay
from bugbox.storage.disks.copy import Copy
from bugbox.storage.disks.layout import Place, Source
from tests.conftest import FACTOR
from tests.unit.firecracker_double import double, end_commands

pytestmark = pytest.mark.timeout(300 * FACTOR)


class Bed:
    """One driver and a machine's two folders."""

    def __init__(self, driver: Driver, spec: MachineSpec) -> None:
        self.driver = driver
        self.spec = spec

    def with_machine(self, test: Callable[[Machine, list[State]], Awaitable[Any]]) -> None:
        """Boot, run the test, and see that the process is gone afterwards."""

        async def main() -> None:
            begun: list[Process] = []
            machine = await self.driver.boot(self.spec, begun.append)
            states: list[State] = []
            machine.watch(states.append)
            try:
                await machine.wait_lifeline()
                await machine.reached(State.READY)
                await test(machine, states)
            finally:
                await machine.stop(1.0)
            assert begun and begun[0].pid == machine.process.pid
            assert not begun[0].alive

        asyncio.run(main())


#: Where the real program is needed: it is in no distribution, and has nothing but KVM.
NO_FIRECRACKER = (
    "" if os.environ.get("BUGBOX_FIRECRACKER") else "BUGBOX_FIRECRACKER names no program"
) or ("" if os.access("/dev/kvm", os.R_OK | os.W_OK) else "no /dev/kvm")
DRIVERS = [
    "fake",
    pytest.param("qemu", marks=pytest.mark.vm),
    # The driver's own logic, on a double of the program.
    "firecracker-double",
    pytest.param(
        "firecracker",
        marks=[pytest.mark.vm, pytest.mark.skipif(bool(NO_FIRECRACKER), reason=NO_FIRECRACKER)],
    ),
]


@pytest.fixture(params=DRIVERS)
def bed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bed]:
    runtime = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    tmp_path.chmod(0o755)
    none = tmp_path / "none"
    none.touch()
    kernel = Kernel(vmlinux=none, initrd=None, release="fake")
    spec = MachineSpec(id="one", kernel=kernel, drives=(), root=tmp_path, runtime=runtime)
    if request.param == "fake":
        driver: Driver = FakeDriver()
    elif request.param == "firecracker-double":
        driver = double(tmp_path, monkeypatch)
    elif request.param == "firecracker":
        driver, spec = real_firecracker(request.getfixturevalue("built"), tmp_path, runtime)
    else:
        driver, spec = real(request.getfixturevalue("built"), tmp_path, runtime)
    yield Bed(driver, spec)
    shutil.rmtree(runtime)
    # pytest keeps the folders of some runs, and a raw disk is half a gigabyte.
    (tmp_path / "disk.raw").unlink(missing_ok=True)
    end_commands(tmp_path)
    if isinstance(driver, firecracker.FirecrackerDriver) and driver.abilities.jailed:
        jails_of(driver.home, driver.settings).give_back(tmp_path)


def real_firecracker(built: Home, folder: Path, runtime: Path) -> tuple[Driver, MachineSpec]:
    kernel, base = store.find_kernel(built), store.find_base(built)
    assert kernel and base
    disk = folder / "disk.raw"
    copy = Copy()
    copy.make(
        Source(base=base.rootfs, layer=None, tar=None, size_bytes=2 << 30),
        Place(folder=folder, tag="bugbox-contract"),
    )
    spec = MachineSpec(
        id="one",
        kernel=Kernel(
            vmlinux=kernel.vmlinux, initrd=store.find_initrd(built, kernel), release=kernel.release
        ),
        drives=(Drive(id="root", path=disk, format="raw"),),
        root=folder,
        runtime=runtime,
        boot_timeout=60.0 * FACTOR,
    )
    return firecracker.FirecrackerDriver(built, load(built)), spec


def real(built: Home, folder: Path, runtime: Path) -> tuple[Driver, MachineSpec]:
    kernel, base = store.find_kernel(built), store.find_base(built)
    assert kernel and base
    below = Drive(id="base", path=base.rootfs, format="raw", read_only=True)
    disk = folder / "disk.qcow2"
    create_overlay(disk, backing=base.rootfs, backing_format="raw", size_bytes=2 << 30)
    settings: Settings = load(built)
    spec = MachineSpec(
        id="one",
        kernel=Kernel(
            vmlinux=kernel.vmlinux, initrd=store.find_initrd(built, kernel), release=kernel.release
        ),
        drives=(Drive(id="root", path=disk, format="qcow2", backing=below),),
        root=folder,
        runtime=runtime,
        uid=settings.uid_base + 7 if os.geteuid() == 0 else None,
    )
    return QemuDriver(built, settings), spec


def test_a_command_is_answered(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        done = await machine.lifeline.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        assert (done.code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
        assert machine.state is State.READY
        # And nobody comes in through a card that is not there.
        with pytest.raises(GuestError, match="no network card"):
            async with machine.opening(80):
                pytest.fail("it has none")

    bed.with_machine(test)


def test_pause_and_resume(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await machine.pause()
        assert machine.state is State.PAUSED
        await machine.resume()
        assert machine.state is State.READY
        assert (await machine.lifeline.run(["true"])).code == 0
        assert states[-2:] == [State.PAUSED, State.READY]

    bed.with_machine(test)


def test_another_process_may_adopt_it(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await machine.release()
        adopted = await bed.driver.adopt(bed.spec, machine.process)
        assert adopted.state is State.READY
        assert (await adopted.lifeline.run(["true"])).code == 0
        await adopted.stop(1.0)

    bed.with_machine(test)


def test_what_is_gone_cannot_be_adopted(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        with machine.console.follow() as console:
            await machine.stop(0)
            async with asyncio.timeout(30):
                while await console.receive() is not None:
                    pass
        with pytest.raises(MachineLost):
            await bed.driver.adopt(bed.spec, machine.process)

    bed.with_machine(test)


def test_a_dead_vmm_is_noticed_and_fails_what_waits(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        waiting = asyncio.create_task(machine.lifeline.run(["sleep", "100"], timeout=200))
        await asyncio.sleep(0.5)
        machine.process.kill()
        with pytest.raises(GuestError):
            await asyncio.wait_for(waiting, 60)
        for _ in range(200):
            if machine.state is State.FAILED:
                break
            await asyncio.sleep(0.05)
        assert machine.state is State.FAILED
        assert machine.reason

    bed.with_machine(test)


def test_reset_boots_the_same_machine_again(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        lifeline, before = machine.lifeline, machine.lifeline.hello
        await machine.reset()
        await machine.wait_lifeline()
        await machine.reached(State.READY)
        assert machine.lifeline is lifeline
        assert before and lifeline.hello and lifeline.hello.boot_id != before.boot_id

    bed.with_machine(test)
