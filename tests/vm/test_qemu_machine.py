# SPDX-License-Identifier: Apache-2.0
"""Real machines on a real QEMU: what guests, hosts and keepers do to them."""

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bugbox.config import load
from bugbox.errors import BootFailed, GuestError, HostError, MachineLost
from bugbox.host.proc import Process, run, spawn
from bugbox.image import store
from bugbox.machine.qemu.driver import QemuDriver
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.machine.spec import Drive, Kernel, MachineSpec
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.storage.disk import create_overlay

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

UID = 1_900_012_345
FACTOR = float(os.environ.get("BUGBOX_TIMEOUT_FACTOR", "1"))


class Bench:
    """Makes specs over the built images and drivers with a state directory of their own."""

    def __init__(self, built: Home, folder: Path, runtime: Path) -> None:
        kernel, base = store.find_kernel(built), store.find_base(built)
        assert kernel is not None and base is not None
        initrd = store.find_initrd(built, kernel)
        assert initrd is not None
        self.kernel = Kernel(vmlinux=kernel.vmlinux, initrd=initrd, release=kernel.release)
        self.base = Drive(id="base", path=base.rootfs, format="raw", read_only=True)
        self.folder = folder
        self.runtime = runtime
        self.home = Home(folder / "home")
        self.settings = load(built)
        (folder / "home" / "cache").mkdir(parents=True)

    @property
    def driver(self) -> QemuDriver:
        return QemuDriver(self.home, self.settings)

    def spec(
        self,
        name: str = "one",
        *,
        disk: Path | None = None,
        kernel: Kernel | None = None,
        boot_timeout: float = 120.0,
    ) -> MachineSpec:
        root = self.folder / name
        root.mkdir(exist_ok=True)
        sockets = self.runtime / name
        sockets.mkdir(exist_ok=True)
        path = disk or root / "disk.qcow2"
        if not path.exists():
            create_overlay(path, backing=self.base.path, backing_format="raw", size_bytes=2 << 30)
        return MachineSpec(
            id=name,
            kernel=kernel or self.kernel,
            drives=(Drive(id="root", path=path, format="qcow2", backing=self.base),),
            root=root,
            runtime=sockets,
            uid=UID if os.geteuid() == 0 else None,
            boot_timeout=boot_timeout * self.settings.timeout_factor,
        )

    @asynccontextmanager
    async def booted(self, spec: MachineSpec) -> AsyncIterator[QemuMachine]:
        machine = await self.driver.boot(spec, lambda process: None)
        assert isinstance(machine, QemuMachine)
        try:
            await machine.wait_lifeline()
            await machine.reached(State.READY)
            yield machine
        finally:
            await machine.stop(0)
            assert not machine.process.alive

    def machine(
        self, test: Callable[[QemuMachine], Awaitable[None]], spec: MachineSpec | None = None
    ) -> None:
        async def main() -> None:
            async with self.booted(spec or self.spec()) as machine:
                await test(machine)

        asyncio.run(main())


@pytest.fixture
def bench(built: Home, tmp_path: Path) -> Iterator[Bench]:
    # Short: a socket's name may have 107 bytes.
    runtime = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    try:
        yield Bench(built, tmp_path, runtime)
    finally:
        shutil.rmtree(runtime)


async def sh(machine: QemuMachine, script: str, timeout: float = 120.0) -> str:
    result = await machine.lifeline.run(["sh", "-c", script], timeout=timeout)
    assert result.status == 0, result
    return result.stdout.decode().strip()


async def last_words(machine: QemuMachine, script: str) -> None:
    """Run what ends the guest; whether an answer comes is luck."""
    with suppress(GuestError):
        await machine.lifeline.run(["sh", "-c", script], timeout=5)


async def until(machine: QemuMachine, *states: State, timeout: float = 120.0) -> None:
    async with asyncio.timeout(timeout):
        while machine.state not in states:
            await machine._change()


async def booted_up(machine: QemuMachine) -> None:
    """Wait for systemd, so that a reboot is a whole one."""
    await sh(machine, "until systemctl is-system-running --wait; do sleep 0.2; done; true")


async def back(machine: QemuMachine) -> None:
    await until(machine, State.REBOOTING)
    await machine.wait_lifeline()
    await machine.reached(State.READY)


def cpu_seconds(process: Process) -> float:
    return process.cpu_ticks() / os.sysconf("SC_CLK_TCK")


def proc_status(process: Process, key: str) -> str:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(key))


def test_boot_command_and_stop(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        assert await sh(machine, "uname -r; echo; lsblk -dno NAME") == (
            f"{bench.kernel.release}\n\nvda"
        )
        assert set(machine.lifeline.milestones) >= {"lifeline", "modules", "root", "init"}
        pid = machine.process.pid
        assert os.getsid(pid) == os.getpgid(pid) == pid, "a session and a group of its own"
        assert proc_status(machine.process, "Seccomp") == "2"
        if machine.spec.uid is not None:
            assert proc_status(machine.process, "Uid").split() == [str(UID)] * 4
            assert proc_status(machine.process, "Groups") == ""
        names = {p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/comm")}
        assert any("CPU" in name for name in names), names
        record = json.loads((machine.spec.root / "argv.json").read_text())
        running = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
        assert record["argv"] == running

    bench.machine(test)
    assert not (bench.folder / "one" / "vmm.log").read_text()


def test_a_polite_stop_powers_the_guest_off(bench: Bench) -> None:
    async def main() -> None:
        spec = bench.spec()
        async with bench.booted(spec) as machine:
            await booted_up(machine)
            await sh(machine, "echo kept > /root/unsynced")
            await machine.stop(60)
            assert machine._powered_off
        async with bench.booted(spec) as machine:
            assert await sh(machine, "cat /root/unsynced") == "kept"

    asyncio.run(main())


def test_a_shutdown_asked_before_the_init_listens_is_not_lost(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        # The lifeline answers while process 1 is still on its way to systemd's signal handlers.
        await machine.lifeline.shutdown("poweroff")
        await until(machine, State.OFF, timeout=120 * FACTOR)

    bench.machine(test)


def test_reboot(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        await booted_up(machine)
        first, pid, lifeline = machine.lifeline.hello, machine.process.pid, machine.lifeline
        await sh(machine, "echo kept > /root/note; systemctl reboot")
        await back(machine)
        assert await sh(machine, "cat /root/note") == "kept"
        assert first and lifeline.hello and first.boot_id != lifeline.hello.boot_id
        assert (machine.process.pid, machine.lifeline) == (pid, lifeline)
        # The hard way, too.
        await last_words(machine, "echo b > /proc/sysrq-trigger")
        await back(machine)
        await sh(machine, "true")

    bench.machine(test)


def test_power_off_and_boot_again(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        await booted_up(machine)
        await sh(machine, "systemctl poweroff")
        await until(machine, State.OFF)
        assert machine.reason == "the guest powered itself off"
        used = cpu_seconds(machine.process)
        await asyncio.sleep(2)
        assert cpu_seconds(machine.process) - used < 0.05, "nothing runs"
        await machine.reset()
        await machine.wait_lifeline()
        await machine.reached(State.READY)
        await sh(machine, "true")

    bench.machine(test)


def test_panic_of_a_running_guest(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        await last_words(machine, "echo c > /proc/sysrq-trigger")
        await until(machine, State.REBOOTING)
        assert machine.reason == "the kernel panicked: sysrq triggered crash"
        await machine.wait_lifeline()
        await sh(machine, "true")

    bench.machine(test)


def test_reset_of_a_guest_that_no_longer_answers(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        await machine.reset()
        assert machine.state is State.REBOOTING
        await machine.wait_lifeline()
        await machine.reached(State.READY)
        await sh(machine, "true")

    bench.machine(test)


def test_kill_of_qemu_under_a_client(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        waiting = asyncio.ensure_future(machine.lifeline.run(["sleep", "300"], timeout=300))
        await asyncio.sleep(0.5)
        begun = time.monotonic()
        machine.process.kill()
        with pytest.raises(GuestError):
            await waiting
        await until(machine, State.FAILED)
        assert time.monotonic() - begun < 3, "told at once, not by a time-out"
        assert machine.reason.startswith("QEMU ended unexpectedly")

    bench.machine(test)


def test_pause_and_resume(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        for _ in range(8):  # QEMU's thread=single came to rest most times, not all
            await sh(machine, "true")
            await machine.pause()
            await rests(machine.process)
            await machine.resume()
        await sh(machine, "true")

    bench.machine(test)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs: needs root")
def test_full_host_disk(bench: Bench, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], timeout=10)
    try:
        disk = small / "disk.qcow2"

        async def test(machine: QemuMachine) -> None:
            await booted_up(machine)
            writing = asyncio.ensure_future(
                sh(
                    machine,
                    "head -c 48M /dev/urandom > /root/big; sync; md5sum < /root/big",
                    timeout=300,
                )
            )
            await until(machine, State.STALLED)
            assert machine.reason == "the host's disk is full"
            # Still full: it stands still again, and nothing is lost.
            await machine.resume()
            await until(machine, State.STALLED)
            run(["mount", "-o", "remount,size=512m", small], timeout=10)
            await machine.resume()
            digest = await writing
            await sh(machine, "echo 3 > /proc/sys/vm/drop_caches")
            assert await sh(machine, "md5sum < /root/big") == digest
            assert "error" not in await sh(machine, "dmesg -l err | grep -i 'vda' || true")
            assert machine.state is State.READY

        bench.machine(test, bench.spec(disk=disk))
        assert b"No errors were found" in run(["qemu-img", "check", disk], timeout=60).stdout
    finally:
        run(["umount", "--lazy", small], timeout=30)


KEEPER = """
import asyncio, json, os, signal, sys
sys.path[:0] = json.loads(sys.argv[2])
from test_qemu_machine import Bench, Home
from pathlib import Path
async def main():
    built, folder, runtime = map(Path, json.loads(sys.argv[1]))
    bench = Bench(Home(built), folder, runtime)
    def started(process):
        (folder / "pid").write_text(json.dumps([process.pid, process.started]))
    machine = await bench.driver.boot(bench.spec(), started)
    await machine.wait_lifeline()
    from bugbox.machine.state import State
    await machine.reached(State.READY)
    terminal = await machine.lifeline.terminal(
        user="root", rows=24, cols=80, term="xterm", login=False, rescue=True)
    await terminal.send(b"echo in=the-terminal\\n")
    (folder / "terminal").write_text(terminal.id)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_adoption_after_the_owner_s_kill(bench: Bench, built: Home, tmp_path: Path) -> None:
    owner_folder = tmp_path / "owner"
    owner_folder.mkdir()
    script = owner_folder / "keeper.py"
    script.write_text(KEEPER)
    arguments = json.dumps([str(built.root), str(owner_folder), str(bench.runtime)])
    path = json.dumps([str(Path(__file__).parent)])
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        **{name: text for name, text in os.environ.items() if name.startswith("BUGBOX_")},
    }
    owner = spawn(
        [sys.executable, script, arguments, path],
        log_file=owner_folder / "log",
        env=environment,
    )
    assert owner.wait_gone(200), "the owner kills itself"
    assert (owner_folder / "terminal").exists(), (owner_folder / "log").read_text()
    pid, started = json.loads((owner_folder / "pid").read_text())
    process = Process(pid=pid, started=started)
    assert process.alive, "the machine outlives its owner"

    async def main() -> None:
        bench.folder = owner_folder
        spec = bench.spec()
        machine = await bench.driver.adopt(spec, process)
        assert isinstance(machine, QemuMachine)
        try:
            assert machine.state is State.READY
            assert await sh(machine, "echo here") == "here"
            assert any("boot of one" in line for line in machine.console.tail())
            id = (owner_folder / "terminal").read_text()
            assert id in await machine.lifeline.terminals()
            terminal = await machine.lifeline.attach(id, 24, 80)
            kept = b""
            async with asyncio.timeout(20):
                while b"in=the-terminal\r\n" not in kept:
                    part = await terminal.receive()
                    assert part is not None
                    kept += part[1]
            # One holder: a second one is refused in time, and the first is not disturbed.
            driver = bench.driver
            driver.settings = type(driver.settings)(timeout_factor=0.1)
            with pytest.raises(MachineLost):
                await driver.adopt(spec, process)
            assert await sh(machine, "echo still") == "still"
            # Let go in order, and taken again.
            await machine.release()
            again = await bench.driver.adopt(spec, process)
            assert again.state is State.READY
            await again.stop(0)
        finally:
            process.kill()
            process.wait_gone(10)
        with pytest.raises(MachineLost, match="gone"):
            await bench.driver.adopt(spec, process)

    asyncio.run(main())


def test_two_machines_at_once(bench: Bench) -> None:
    async def main() -> None:
        async with bench.booted(bench.spec("one")) as one, bench.booted(bench.spec("two")) as two:
            await sh(one, "echo one > /root/who")
            await sh(two, "echo two > /root/who")
            assert await sh(one, "sync; cat /root/who") == "one"
            assert await sh(two, "sync; cat /root/who") == "two"
            one.process.kill()
            await until(one, State.FAILED)
            assert await sh(two, "echo fine") == "fine"

    asyncio.run(main())


def test_the_guest_s_clock_runs_as_the_host_s(bench: Bench) -> None:
    async def test(machine: QemuMachine) -> None:
        async def sample() -> tuple[float, float]:
            tries = []
            for _ in range(5):
                before = time.monotonic()
                guest = float((await sh(machine, "cat /proc/uptime")).split()[0])
                after = time.monotonic()
                tries.append((after - before, (before + after) / 2, guest))
            _, host, guest = min(tries)
            return host, guest

        await booted_up(machine)
        assert await sh(machine, "cat /sys/devices/system/clocksource/*/current_clocksource") in (
            "tsc",
            "kvm-clock",
        )
        host_0, guest_0 = await sample()
        await asyncio.sleep(20)
        host_1, guest_1 = await sample()
        assert (guest_1 - guest_0) / (host_1 - host_0) == pytest.approx(1, abs=0.005)

    bench.machine(test)


async def rests(process: Process) -> None:
    """Wait until a stopped machine uses no CPU; it first ends its disks' requests under way."""
    for _ in range(20):
        used = cpu_seconds(process)
        await asyncio.sleep(1)
        if cpu_seconds(process) - used < 0.03:
            return
    pytest.fail("a stopped machine still uses the CPU")


def boots_to_failure(bench: Bench, spec: MachineSpec) -> tuple[BootFailed, QemuMachine, float]:
    async def main() -> tuple[BootFailed, QemuMachine, float]:
        machine = await bench.driver.boot(spec, lambda process: None)
        assert isinstance(machine, QemuMachine)
        begun = time.monotonic()
        try:
            with pytest.raises(BootFailed) as caught:
                await machine.wait_lifeline()
            took = time.monotonic() - begun
            await rests(machine.process)
            return caught.value, machine, took
        finally:
            await machine.stop(0)

    return asyncio.run(main())


def kernel(bench: Bench, *extra: str, initrd: Path | None = None) -> Kernel:
    return Kernel(
        vmlinux=bench.kernel.vmlinux,
        initrd=initrd,
        release=bench.kernel.release,
        extra_args=extra,
    )


def test_a_boot_without_its_root_says_so_at_once(bench: Bench) -> None:
    made = kernel(bench, "bugbox.root=/dev/vdq", initrd=bench.kernel.initrd)
    error, machine, took = boots_to_failure(bench, bench.spec(kernel=made))
    assert "vdq" in error.message, error.message
    assert "boot failed" in (error.detail or "")
    assert took < 60 and machine.retries == 0


def test_a_kernel_that_panics_says_so_at_once(bench: Bench) -> None:
    error, machine, took = boots_to_failure(bench, bench.spec(kernel=kernel(bench)))
    assert "panicked" in error.message and "VFS" in error.message
    assert took < 60 and machine.retries == 0


def test_a_silent_machine_is_started_again_once(bench: Bench) -> None:
    silent = kernel(bench, "console=null", "panic=0")
    error, machine, took = boots_to_failure(bench, bench.spec(kernel=silent, boot_timeout=6))
    assert machine.retries == 1
    assert "did not start" in error.message
    assert took < 30


def test_what_cannot_start_leaves_no_process(bench: Bench) -> None:
    processes: list[Process] = []

    def boot(spec: MachineSpec) -> None:
        asyncio.run(bench.driver.boot(spec, processes.append))

    missing = bench.spec()
    (bench.folder / "one" / "disk.qcow2").unlink()
    with pytest.raises(HostError, match=r"disk\.qcow2 cannot be opened"):
        boot(missing)
    assert processes == []
    (bench.folder / "one" / "disk.qcow2").write_bytes(b"no qcow2 at all" * 100)
    with pytest.raises(BootFailed, match=r"QEMU did not start: .*not in qcow2 format") as caught:
        boot(missing)
    assert "qcow2" in (caught.value.detail or "")
    assert len(processes) == 1 and not processes[0].alive


def test_an_interrupted_boot_leaves_no_process(bench: Bench) -> None:
    processes: list[Process] = []

    async def main() -> None:
        for delay in (0.02, 0.05, 0.1, 0.2):
            task = asyncio.ensure_future(bench.driver.boot(bench.spec(), processes.append))
            await asyncio.sleep(delay)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            if isinstance(results[0], QemuMachine):
                await results[0].stop(0)

    asyncio.run(main())
    assert not any(process.alive for process in processes)
