# SPDX-License-Identifier: Apache-2.0
"""A machine's states, driven by QEMU's events: every fault without a VM."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from qemu_double import QemuDouble, machine_on_double

from bugbox.errors import BootFailed, GuestError, MachineLost, OutOfResources, StateError
from bugbox.host.proc import Process
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.machine.state import State

Test = Callable[[QemuMachine, QemuDouble, Process], Awaitable[None]]


def on_double(tmp_path: Path, test: Test, *, boot_timeout: float = 10.0) -> None:
    async def main() -> None:
        async with machine_on_double(tmp_path, boot_timeout=boot_timeout) as (m, double, process):
            await asyncio.wait_for(test(m, double, process), 30)

    asyncio.run(main())


async def up(machine: QemuMachine) -> None:
    await machine.attach()
    await machine.start()
    await machine.wait_lifeline()
    await machine.reached(State.READY)


async def until(machine: QemuMachine, state: State) -> None:
    while machine.state is not state:
        await machine._change()


def test_boot_to_ready_and_stop(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        seen: list[State] = []
        machine.watch(seen.append)
        await up(machine)
        assert machine.lifeline.connected and machine.reason == ""
        assert (await machine.lifeline.run(["echo", "hello"])).stdout == b"hello\n"
        kept = json.loads((tmp_path / "boot.json").read_text())
        assert machine.lifeline.hello is not None
        assert kept["boot_id"] == machine.lifeline.hello.boot_id
        process.kill()  # the double does not end by itself
        await machine.stop(0)
        assert "quit" in double.commands
        assert seen == [State.READY, State.STOPPING, State.STOPPED]
        await machine.stop(0)
        assert not process.alive

    on_double(tmp_path, test)


def test_nothing_runs_before_we_hold_all_sockets(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await machine.attach()
        assert "cont" not in double.commands
        assert double._console is not None or await _soon(lambda: double._console is not None)

    on_double(tmp_path, test)


async def _soon(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.005)
    return False


def test_stop_kills_a_qemu_that_does_not_listen(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        double.silent = {"quit", "query-status"}
        begun = asyncio.get_running_loop().time()
        await machine.stop(0)
        assert not process.alive and machine.state is State.STOPPED
        assert asyncio.get_running_loop().time() - begun < 10

    on_double(tmp_path, test)


def test_a_guest_s_reboot_keeps_the_machine(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        seen: list[State] = []
        await up(machine)
        lifeline, first = machine.lifeline, machine.lifeline.hello
        machine.watch(seen.append)
        await double.reboot()
        await until(machine, State.REBOOTING)
        await machine.wait_lifeline()
        await machine.reached(State.READY)
        assert machine.lifeline is lifeline and lifeline.connected
        assert first is not None and lifeline.hello is not None
        assert (await machine.lifeline.run(["true"])).status == 0
        assert seen == [State.REBOOTING, State.READY]
        assert "[bugbox] reboot" in machine.console.tail()

    on_double(tmp_path, test)


def test_each_reboot_is_told(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        seen: list[State] = []
        machine.watch(seen.append)
        waiting = asyncio.ensure_future(machine.wait_lifeline())
        await waiting
        for _ in range(3):
            await double.reboot()
        await _soon(lambda: len(seen) == 3)
        assert seen == [State.REBOOTING] * 3
        await machine.wait_lifeline()
        await machine.reached(State.READY)

    on_double(tmp_path, test)


def test_a_guest_that_reboots_and_never_comes_back_fails(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        double.comes_up = False
        await double.reboot()
        await until(machine, State.REBOOTING)
        await double.say("last words\n")
        with pytest.raises(BootFailed, match="did not start within 3 s") as caught:
            await machine.wait_lifeline()
        assert "last words" in (caught.value.detail or "")
        assert machine.state is State.FAILED
        assert await _soon(lambda: double.commands[-1] == "stop"), "nothing runs on"
        # and can be brought back
        double.comes_up = True
        await machine.reset()
        await machine.wait_lifeline()
        await machine.reached(State.READY)

    on_double(tmp_path, test, boot_timeout=3.0)


def test_power_off_and_boot_again(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await double.power_off()
        await until(machine, State.OFF)
        assert machine.reason == "the guest powered itself off" and process.alive
        with pytest.raises(StateError):
            await machine.resume()
        await machine.reset()
        assert machine.state is State.BOOTING
        await machine.wait_lifeline()
        await machine.reached(State.READY)
        assert double.commands[-2:] == ["system_reset", "cont"]

    on_double(tmp_path, test)


def test_power_off_while_booting_ends_the_wait(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        waiting = asyncio.ensure_future(machine.wait_lifeline())
        await asyncio.sleep(0.05)
        await double.power_off()
        with pytest.raises(BootFailed, match="powered itself off"):
            await waiting

    on_double(tmp_path, test)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[ 1.0] Kernel panic - not syncing: VFS: no root\n", "the kernel panicked: VFS: no root"),
        ("bugbox: boot failed: mount /dev/vda: EIO\n", "the boot failed: mount /dev/vda: EIO"),
    ],
)
def test_a_boot_that_fails_is_told_at_once(tmp_path: Path, said: str, why: str) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        begun = asyncio.get_running_loop().time()
        await double.say("some line before\n" + said)
        with pytest.raises(BootFailed, match=why) as caught:
            await machine.wait_lifeline()
        assert asyncio.get_running_loop().time() - begun < 2
        assert "some line before" in (caught.value.detail or "")
        assert machine.state is State.FAILED and machine.reason == why
        with pytest.raises(BootFailed, match=why):
            await machine.wait_lifeline()

    on_double(tmp_path, test)


def test_a_panic_after_ready_is_a_reboot_with_a_reason(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await double.say("Kernel panic - not syncing: sysrq triggered crash\n")
        await double.say("bugbox: boot failed: says the learner\n")
        await _soon(lambda: "learner" in machine.console.tail()[-1])
        assert machine.state is State.READY
        await double.reboot()
        await until(machine, State.REBOOTING)
        assert machine.reason == "the kernel panicked: sysrq triggered crash"
        await machine.wait_lifeline()

    on_double(tmp_path, test)


def test_a_silent_boot_is_begun_again_once(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        await _soon(lambda: "cont" in double.commands)
        double.comes_up = True  # from the next reset on
        await machine.wait_lifeline()
        assert machine.retries == 1 and double.commands.count("system_reset") == 1

    on_double(tmp_path, test, boot_timeout=4.0)


def test_a_boot_silent_twice_fails(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        with pytest.raises(BootFailed):
            await machine.wait_lifeline()
        assert double.commands.count("system_reset") == 1

    on_double(tmp_path, test, boot_timeout=0.6)


def test_a_slow_boot_that_says_something_is_not_begun_again(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        await double.say("still here\n")
        await asyncio.sleep(0.9)
        double.comes_up = True
        await double._come_up()
        await machine.wait_lifeline()
        assert "system_reset" not in double.commands

    on_double(tmp_path, test, boot_timeout=1.5)


def test_full_host_disk_stalls_and_resumes(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await double.fill_disk()
        await until(machine, State.STALLED)
        assert machine.reason == "the host's disk is full"
        assert machine.lifeline.paused
        with pytest.raises(OutOfResources, match="disk is full"):
            await machine.wait_lifeline()
        await machine.resume()
        assert machine.state is State.READY and not machine.lifeline.paused  # type: ignore[comparison-overlap]
        assert (await machine.lifeline.run(["true"])).status == 0
        # A late event of a write that has been tried again since says nothing of the machine.
        await double.disk_error()
        assert await machine._monitor.status() == "running"
        assert machine.state is State.READY
        # still full: it stalls again
        await double.fill_disk()
        await until(machine, State.STALLED)

    on_double(tmp_path, test)


def test_full_host_disk_while_booting(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        double.comes_up = False
        await machine.attach()
        await machine.start()
        waiting = asyncio.ensure_future(machine.wait_lifeline())
        await asyncio.sleep(0.02)
        await double.fill_disk()
        with pytest.raises(OutOfResources):
            await waiting
        double.comes_up = True
        await machine.resume()
        assert machine.state is State.BOOTING
        await machine.wait_lifeline()
        await machine.reached(State.READY)

    on_double(tmp_path, test)


def test_pause_and_resume(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await machine.pause()
        assert machine.state is State.PAUSED and double.status == "paused"
        assert machine.lifeline.paused
        with pytest.raises(StateError):
            await machine.pause()
        await machine.resume()
        assert machine.state is State.READY and double.status == "running"  # type: ignore[comparison-overlap]

    on_double(tmp_path, test)


def test_a_resume_that_is_refused_stays_paused(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await machine.pause()
        double.refused.add("cont")
        with pytest.raises(GuestError, match="refused cont"):
            await machine.resume()
        assert machine.state is State.PAUSED and machine.lifeline.paused

    on_double(tmp_path, test)


def test_the_death_of_qemu_is_told_with_its_last_words(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        with (tmp_path / "vmm.log").open("a") as log:
            log.write("first\nqemu-system-x86_64: a fatal thing\n")
        waiting = asyncio.ensure_future(machine.lifeline.run(["sleep", "60"]))
        await asyncio.sleep(0.1)
        process.kill()
        double.hang_up()
        await double._down()
        await until(machine, State.FAILED)
        assert machine.reason == "QEMU ended unexpectedly: qemu-system-x86_64: a fatal thing"
        with pytest.raises(GuestError):
            await waiting
        with pytest.raises(MachineLost, match="a fatal thing"):
            await machine.wait_lifeline()
        with pytest.raises(MachineLost, match="gone"):
            await machine.reset()
        await machine.stop()
        assert machine.state is State.STOPPED  # type: ignore[comparison-overlap]

    on_double(tmp_path, test)


def test_a_lost_monitor_of_a_living_qemu_is_taken_up_again(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        assert double._monitor is not None
        double._monitor.close()
        assert await _soon(lambda: not machine._monitor.connected)
        # At once: a command waits for the new connection.
        await machine.pause()
        assert double.commands.count("qmp_capabilities") == 2
        assert machine.state is State.PAUSED

    on_double(tmp_path, test)


def _monitor_goes(double: QemuDouble) -> None:
    assert double._monitor is not None
    double._monitor.close()


@pytest.mark.parametrize(
    ("status", "state"),
    [("shutdown", State.OFF), ("io-error", State.STALLED), ("paused", State.PAUSED)],
)
def test_what_happened_without_a_monitor_is_seen_when_it_is_back(
    tmp_path: Path, status: str, state: State
) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        double.status = status
        _monitor_goes(double)
        await until(machine, state)
        assert machine.lifeline.paused
        if state is State.OFF:
            await machine.reset()
        else:
            await machine.resume()
        await machine.wait_lifeline()

    on_double(tmp_path, test)


def test_a_reboot_without_a_monitor_is_seen_when_it_is_back(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        (tmp_path / "boot.json").write_text('{"boot_id": "an older boot"}')
        _monitor_goes(double)
        await until(machine, State.REBOOTING)
        await machine.wait_lifeline()
        await machine.reached(State.READY)

    on_double(tmp_path, test)


def test_a_monitor_that_is_lost_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "wait_gone", lambda process, timeout: False)

    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        answer = double._answer

        async def hang_up(request: dict[str, object]) -> None:
            if request.get("execute") == "query-status":
                _monitor_goes(double)
            else:
                await answer(request)

        double._answer = hang_up  # type: ignore[method-assign]
        _monitor_goes(double)
        await until(machine, State.FAILED)
        assert machine.reason == "QEMU's monitor was lost again and again"
        assert double.commands.count("qmp_capabilities") == 4

    on_double(tmp_path, test)


def test_a_watcher_that_fails_hurts_nobody(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        seen: list[State] = []
        machine.watch(lambda state: 1 / 0)  # type: ignore[arg-type,return-value]
        machine.watch(seen.append)
        await up(machine)
        assert seen == [State.READY]

    on_double(tmp_path, test)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("running", State.READY),
        ("paused", State.PAUSED),
        ("shutdown", State.OFF),
        ("io-error", State.STALLED),
    ],
)
def test_adoption(tmp_path: Path, status: str, state: State) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await machine.release()
        assert process.alive
        double.status = status
        heir = QemuMachine(machine.spec, process, factor=1.0, state=State.READY)
        try:
            await heir.take_up(await heir.attach(), 2.0)
            assert heir.state is state
            if state in (State.PAUSED, State.STALLED):
                await heir.resume()
            elif state is State.OFF:
                await heir.reset()
            await heir.wait_lifeline()
            assert (await heir.lifeline.run(["echo", "on"])).stdout == b"on\n"
        finally:
            await heir.release()

    on_double(tmp_path, test)


def test_adoption_notices_a_reboot_that_nobody_saw(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await up(machine)
        await machine.release()
        await double._down()
        await double._come_up()
        (tmp_path / "boot.json").write_text('{"boot_id": "an older boot"}')
        heir = QemuMachine(machine.spec, process, factor=1.0, state=State.READY)
        try:
            await heir.take_up(await heir.attach(), 2.0)
            assert heir.state is State.REBOOTING
            await heir.wait_lifeline()
            await heir.reached(State.READY)
        finally:
            await heir.release()

    on_double(tmp_path, test)


def test_adoption_of_a_qemu_in_an_unknown_state_is_refused(tmp_path: Path) -> None:
    async def test(machine: QemuMachine, double: QemuDouble, process: Process) -> None:
        await machine.attach()
        with pytest.raises(MachineLost, match="internal-error"):
            await machine.take_up("internal-error", 0.1)

    on_double(tmp_path, test)
