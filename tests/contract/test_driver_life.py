# SPDX-License-Identifier: Apache-2.0
"""What every driver must do when a machine's life takes a turn: reboots, power off, take-over."""

import asyncio
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from test_driver import Bed, bed

from bugbox.errors import BootFailed, GuestError, MachineLost, StateError
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.driver import Machine
from bugbox.machine.fake import FakeDriver
from bugbox.machine.state import State

__all__ = ["bed"]

pytestmark = pytest.mark.timeout(600)

UP = (b"running", b"degraded")


async def reaches(machine: Machine, wanted: State, seconds: float = 180.0) -> None:
    async with asyncio.timeout(seconds):
        while machine.state is not wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def begun(machine: Machine) -> None:
    """Wait until the guest has begun what was asked for."""
    async with asyncio.timeout(180):
        while not any(_channels(machine)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _channels(machine: Machine) -> list[bool]:
    connection = machine.lifeline._connection
    channels = connection._channels.values() if connection is not None else ()
    return [channel.opened is not None for channel in channels]


def state_of(machine: Machine) -> State:
    """Read afresh: a type checker believes that what was read once stays so."""
    return machine.state


def boot_id(machine: Machine) -> str:
    hello = machine.lifeline.hello
    assert hello is not None
    return hello.boot_id


async def started(machine: Machine) -> None:
    """Wait until the init is done: the lifeline answers long before, but then there are
    neither terminals nor anybody who hears of a reboot."""
    argv = ["systemctl", "is-system-running", "--wait"]
    async with asyncio.timeout(300):
        while True:
            if (await machine.lifeline.run(argv, timeout=300)).stdout.strip() in UP:
                return
            await asyncio.sleep(0.1)


async def ask_to(machine: Machine, what: str) -> None:
    """Reboot or power off from inside."""
    await started(machine)
    await machine.lifeline.shutdown(what)


async def taken_over(bed: Bed, first: Machine) -> Machine:
    await first.release()
    assert first.process.alive
    return await bed.driver.adopt(bed.spec, first.process)


async def ready_again(machine: Machine) -> None:
    await machine.wait_lifeline()
    if state_of(machine) is not State.READY:
        await machine.reached(State.READY)
    assert (await machine.lifeline.run(["echo", "on"])).stdout == b"on\n"


def test_states_are_told_in_order_and_stop_is_final(bed: Bed) -> None:
    async def main() -> None:
        begun: list[Process] = []
        machine = await bed.driver.boot(bed.spec, begun.append)
        states: list[State] = []
        try:
            assert state_of(machine) is State.BOOTING
            assert machine.spec == bed.spec
            machine.watch(states.append)
            await machine.wait_lifeline()
            assert state_of(machine) is State.BOOTING, "only the session says ready"
            await machine.reached(State.READY)
            await machine.wait_lifeline()
            await machine.lifeline.ping()
            assert {"lifeline", "root"} <= set(machine.lifeline.milestones)
        finally:
            await machine.stop(20)
        await machine.stop()
        assert states == [State.READY, State.STOPPING, State.STOPPED]
        with pytest.raises(MachineLost):
            await machine.lifeline.run(["true"])

    asyncio.run(main())


def test_the_guests_reboot_is_the_same_machine(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        lifeline, before, process = machine.lifeline, boot_id(machine), machine.process
        await lifeline.put("/kept", b"kept")
        await lifeline.sync()
        waiting = asyncio.ensure_future(lifeline.run(["sleep", "1000"], timeout=900))
        await begun(machine)
        await ask_to(machine, "reboot")
        await reaches(machine, State.REBOOTING)
        # The guest's init may end the command before the machine goes down.
        await asyncio.wait([waiting], timeout=60)
        assert waiting.done()
        assert waiting.exception() is None or isinstance(waiting.exception(), GuestError)
        await machine.wait_lifeline()
        assert state_of(machine) is State.REBOOTING, "only the session says ready"
        await ready_again(machine)
        assert boot_id(machine) != before
        assert (machine.lifeline, machine.process) == (lifeline, process)
        assert await lifeline.get("/kept", limit=100) == b"kept"

    bed.with_machine(test)


def test_off_and_on_again(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await machine.lifeline.put("/kept", b"kept")
        await machine.lifeline.sync()
        await ask_to(machine, "poweroff")
        await reaches(machine, State.OFF)
        assert machine.reason
        assert machine.process.alive
        with pytest.raises(GuestError):
            await machine.wait_lifeline()
        with pytest.raises(StateError):
            await machine.resume()
        await machine.reset()
        assert state_of(machine) is State.BOOTING
        assert machine.reason == ""
        await ready_again(machine)
        assert await machine.lifeline.get("/kept", limit=100) == b"kept"

    bed.with_machine(test)


def test_a_reset_fails_what_waits(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        waiting = asyncio.ensure_future(machine.lifeline.run(["sleep", "1000"], timeout=900))
        await begun(machine)
        await machine.reset()
        assert state_of(machine) is State.REBOOTING
        with pytest.raises(GuestError):
            await asyncio.wait_for(waiting, 60)
        await ready_again(machine)

    bed.with_machine(test)


def test_a_paused_machine_loses_nothing_and_only_it_can_be_resumed(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        running = asyncio.ensure_future(machine.lifeline.run(["sh", "-c", "sleep 1; echo on"]))
        await begun(machine)
        await machine.pause()
        with pytest.raises(StateError):
            await machine.pause()
        with pytest.raises(GuestError):
            await machine.lifeline.ping(0.5)
        await machine.resume()
        assert (await running).stdout == b"on\n"
        with pytest.raises(StateError):
            await machine.resume()

    bed.with_machine(test)


def test_stop_of_a_paused_machine(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await machine.pause()

    bed.with_machine(test)


def test_a_terminal_is_still_there_after_a_take_over(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        before = boot_id(machine)
        await started(machine)
        terminal = await machine.lifeline.terminal(argv=["sh"])
        await terminal.send(b"X=kept\n")
        await machine.lifeline.ping()
        second = await taken_over(bed, machine)
        assert (second.state, boot_id(second)) == (State.READY, before)
        again = await second.lifeline.attach(terminal.id, 24, 80)
        await again.send(b"echo still-$X\n")
        seen = b""
        async with asyncio.timeout(60):
            while b"still-kept" not in seen:
                item = await again.receive()
                assert item is not None
                seen += item[1]
        await second.stop(0)

    bed.with_machine(test)


def test_a_reboot_that_nobody_saw_is_found_out(bed: Bed) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        await ask_to(machine, "reboot")
        await reaches(machine, State.REBOOTING)
        second = await taken_over(bed, machine)
        assert state_of(second) in (State.BOOTING, State.REBOOTING)
        await ready_again(second)
        await second.stop(0)

    bed.with_machine(test)


@pytest.mark.parametrize("state", [State.PAUSED, State.OFF])
def test_one_that_stands_still_is_taken_over(bed: Bed, state: State) -> None:
    async def test(machine: Machine, states: list[State]) -> None:
        if state is State.PAUSED:
            await machine.pause()
        else:
            await ask_to(machine, "poweroff")
            await reaches(machine, State.OFF)
        second = await taken_over(bed, machine)
        assert state_of(second) is state
        await (second.resume() if state is State.PAUSED else second.reset())
        await ready_again(second)
        await second.stop(0)

    bed.with_machine(test)


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.3])
def test_an_interrupted_boot_leaves_no_process(bed: Bed, pause: float) -> None:
    async def main() -> None:
        begun: list[Process] = []
        booting = asyncio.ensure_future(bed.driver.boot(bed.spec, begun.append))
        await asyncio.sleep(pause)
        booting.cancel()
        result = (await asyncio.gather(booting, return_exceptions=True))[0]
        if not isinstance(result, BaseException):
            await result.stop(0)
        for process in begun:
            assert await in_thread(process.wait_gone, 20.0)

    asyncio.run(main())


def test_a_record_that_cannot_be_written_leaves_no_process(bed: Bed) -> None:
    begun: list[Process] = []

    def refuse(process: Process) -> None:
        begun.append(process)
        raise OSError("no room for the record")

    async def main() -> None:
        with pytest.raises(OSError, match="no room"):
            await bed.driver.boot(bed.spec, refuse)
        assert len(begun) == 1
        assert await in_thread(begun[0].wait_gone, 20.0)

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["fake.panic", "fake.failed", "fake.silent"])
@pytest.mark.parametrize("bed", ["fake", "firecracker-double"], indirect=True)
def test_a_boot_that_fails_says_why(bed: Bed, fault: str) -> None:
    """The fake's own faults; those of a real guest are in tests/vm."""
    kernel = replace(bed.spec.kernel, extra_args=(fault,))
    bed.spec = replace(bed.spec, kernel=kernel, boot_timeout=1.0)

    async def main() -> None:
        machine = await bed.driver.boot(bed.spec, lambda process: None)
        try:
            with pytest.raises(BootFailed) as caught:
                await machine.wait_lifeline()
            assert "Linux version fake" in (caught.value.detail or "")
            assert state_of(machine) is State.FAILED
        finally:
            await machine.stop(1)
        assert not machine.process.alive

    asyncio.run(main())


def test_a_suspended_machine_goes_on_where_it_was(bed: Bed, tmp_path: Path) -> None:
    """In another process, with its memory; and in the first one when nothing came of it."""
    if not bed.driver.abilities.clone:
        pytest.skip("this driver saves no machines")
    kept = 'echo "$1" >"${FAKE_ROOT:-/run}/kept"'
    saved = tmp_path / "memory.state"

    async def suspended(machine: Machine, path: Path) -> tuple[int, str]:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            return await machine.suspend(fd)
        finally:
            os.close(fd)

    async def test(machine: Machine, states: list[State]) -> None:
        await started(machine)
        with pytest.raises(StateError):
            await suspended(machine, saved)
        await machine.pause()
        with pytest.raises(OSError, match="No space left"):
            await suspended(machine, Path("/dev/full"))
        assert machine.state is State.PAUSED
        # It runs on after a failure, and also after all was written.
        for word in ("once", "twice"):
            await machine.resume()
            await machine.lifeline.run(["sh", "-c", kept, "sh", word])
            await machine.pause()
            size, digest = await suspended(machine, saved)
        assert (size, digest) == (saved.stat().st_size, sha256(saved.read_bytes()).hexdigest())
        was = boot_id(machine)
        await machine.stop(0.0)
        with saved.open("rb") as file:
            second = await bed.driver.restore(bed.spec, file.fileno(), lambda process: None)
        try:
            assert state_of(second) is State.PAUSED
            await second.resume()
            await second.wait_lifeline()
            assert boot_id(second) == was
            told = await second.lifeline.run(["sh", "-c", 'cat "${FAKE_ROOT:-/run}/kept"'])
            assert told.stdout == b"twice\n"
            # And once more from there: its memory now lies elsewhere than at first.
            await second.pause()
            await suspended(second, saved)
        finally:
            await second.stop(0.0)
        assert not second.process.alive

    bed.with_machine(test)


def test_a_torn_machine_is_not_restored(bed: Bed, tmp_path: Path) -> None:
    """Whoever keeps it looks at its digest; should one be fed all the same, nothing is left."""
    torn = tmp_path / "torn"
    torn.write_bytes(b"no machine\n" + os.urandom(1 << 20))
    if isinstance(bed.driver, FakeDriver):
        pytest.skip("a fake believes what it is fed")
    if not bed.driver.abilities.clone:
        pytest.skip("this driver restores no machines")

    async def main() -> None:
        begun: list[Process] = []
        with torn.open("rb") as file, pytest.raises(GuestError):
            await bed.driver.restore(bed.spec, file.fileno(), begun.append)
        assert len(begun) == 1 and not begun[0].alive

    asyncio.run(main())
