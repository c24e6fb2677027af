# SPDX-License-Identifier: Apache-2.0
"""Firecracker's driver and its warden, on a double of the program: what no contract test asks."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from firecracker_double import double, end_commands
from session_world import PATIENCE

from bugbox.errors import (
    BootFailed,
    GuestError,
    HostError,
    MachineLost,
    MissingTool,
    StateError,
    UserError,
)
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process, spawn, start_time
from bugbox.machine.driver import Machine
from bugbox.machine.firecracker import driver as firecracker
from bugbox.machine.firecracker import warden as wardens
from bugbox.machine.firecracker.config import Names, arguments, requests
from bugbox.machine.firecracker.driver import FirecrackerDriver
from bugbox.machine.firecracker.jail import Jails
from bugbox.machine.firecracker.version import Version
from bugbox.machine.firecracker.warden import _end_all_of, _remove
from bugbox.machine.spec import Drive, Kernel, MachineSpec, Nic
from bugbox.machine.state import State

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[MachineSpec]:
    runtime = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    kernel = tmp_path / "vmlinux"
    kernel.touch()
    yield MachineSpec(
        id="one",
        kernel=Kernel(vmlinux=kernel, initrd=None, release="fake"),
        drives=(),
        root=tmp_path,
        runtime=runtime,
        boot_timeout=PATIENCE,
    )
    shutil.rmtree(runtime)
    end_commands(tmp_path)


def with_args(spec: MachineSpec, *args: str) -> MachineSpec:
    return replace(spec, kernel=replace(spec.kernel, extra_args=args))


async def ready(driver: FirecrackerDriver, spec: MachineSpec) -> Machine:
    machine = await driver.boot(spec, lambda process: None)
    await machine.wait_lifeline()
    await machine.reached(State.READY)
    return machine


async def reaches(machine: Machine, wanted: State) -> None:
    async with asyncio.timeout(PATIENCE):
        while machine.state is not wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def children(process: Process) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in text.split()]


async def gone(pid: int) -> bool:
    async with asyncio.timeout(PATIENCE):
        while Path(f"/proc/{pid}/exe").exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return True


# The words for it.

NAMES = Names(
    api="/run/api",
    config="/s/firecracker.json",
    log="/proc/self/fd/2",
    vsock="/run/vsock",
    kernel="/k/vmlinux",
    initrd="/k/initrd",
    drives={"root": "/s/disk.raw", "extra-data": "/s/extra.raw"},
)


def test_the_command_line():
    assert arguments("one", NAMES) == [
        *("--id", "one", "--api-sock", "/run/api"),
        *("--log-path", "/proc/self/fd/2", "--level", "Info"),
        *("--config-file", "/s/firecracker.json"),
    ]
    # In a jail the jailer says who it is.
    assert "--id" not in arguments("", NAMES)


def test_a_machines_requests(spec: MachineSpec):
    drives = (
        Drive(id="root", path=Path("/s/disk.raw"), format="raw"),
        Drive(id="extra-data", path=Path("/s/extra.raw"), format="raw", read_only=True),
    )
    nics = (Nic(id="net0", mac="06:00:00:00:00:01", tap="tap7"),)
    made = requests(replace(spec, drives=drives, nics=nics), NAMES, "quiet", Version(1, 12))
    bodies = {each.path: each.body(Version(1, 12)) for each in made}
    assert list(bodies) == [
        *("/boot-source", "/machine-config", "/drives/root", "/drives/extra_data"),
        *("/network-interfaces/net0", "/vsock", "/entropy"),
    ]
    assert bodies["/boot-source"] == {
        "kernel_image_path": "/k/vmlinux", "initrd_path": "/k/initrd", "boot_args": "quiet",
    }  # fmt: skip
    assert bodies["/vsock"] == {"guest_cid": 3, "uds_path": "/run/vsock"}
    assert bodies["/drives/extra_data"]["is_read_only"] is True
    assert bodies["/drives/root"]["rate_limiter"]["bandwidth"]["size"] > 0
    assert bodies["/network-interfaces/net0"]["host_dev_name"] == "tap7"
    # And a console that cannot flood us, where the version has that.
    newer = requests(spec, NAMES, "quiet", Version(1, 16))
    assert newer[-1].path == "/serial"


def test_what_it_cannot_have_is_refused(spec: MachineSpec):
    qcow2 = replace(spec, drives=(Drive(id="root", path=Path("/d"), format="qcow2"),))
    with pytest.raises(UserError, match="qcow2") as caught:
        requests(qcow2, NAMES, "", Version(1, 16))
    assert "--disk" in (caught.value.hint or "")
    with pytest.raises(UserError, match="user-mode"):
        requests(replace(spec, nics=(Nic(id="n", mac="m"),)), NAMES, "", Version(1, 16))


# What the host lacks.


async def test_without_its_jailer_only_when_told_so(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = double(tmp_path, monkeypatch)
    nowhere = str(tmp_path / "nowhere")
    driver.settings = replace(driver.settings, firecracker_jail="on", jailer=nowhere)
    assert driver.abilities.jailed
    with pytest.raises(MissingTool, match="jailer") as caught:
        await driver.boot(spec, lambda process: pytest.fail("it was started"))
    assert "BUGBOX_FIRECRACKER_JAIL=off" in (caught.value.hint or "")


async def test_one_that_cannot_be_jailed_is_not_started(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The double is a script: in a jail there would be nothing to run it with."""
    driver = double(tmp_path, monkeypatch)
    driver.settings = replace(driver.settings, firecracker_jail="on", jailer="/bin/true")
    with pytest.raises(HostError):
        await driver.boot(spec, lambda process: pytest.fail("it was started"))


async def test_a_program_that_is_not_there_or_too_old(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = double(tmp_path, monkeypatch, version="1.11.2")
    with pytest.raises(HostError, match=r"1\.11.*needs 1\.12"):
        await driver.boot(spec, lambda process: pytest.fail("it was started"))
    driver = double(tmp_path, monkeypatch)
    (tmp_path / "firecracker").chmod(0o644)
    with pytest.raises(MissingTool, match="Firecracker") as caught:
        await driver.boot(spec, lambda process: pytest.fail("it was started"))
    assert "BUGBOX_FIRECRACKER" in (caught.value.hint or "")


async def test_no_kvm_for_us(spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check = firecracker.check_kvm
    driver = double(tmp_path, monkeypatch)
    monkeypatch.setattr(firecracker, "check_kvm", check)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HostError, match="needs KVM"):
        await driver.boot(spec, lambda process: pytest.fail("it was started"))


@pytest.mark.parametrize("missing", ["vmlinux", "disk.raw"])
async def test_a_file_that_is_gone_is_named(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
):
    (tmp_path / "disk.raw").touch()
    drives = (Drive(id="root", path=tmp_path / "disk.raw", format="raw"),)
    (tmp_path / missing).unlink()
    driver = double(tmp_path, monkeypatch)
    with pytest.raises(HostError, match=f"{missing} is not there"):
        await driver.boot(replace(spec, drives=drives), lambda process: pytest.fail("started"))


async def test_one_that_ends_at_once_says_why(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    begun: list[Process] = []
    driver = double(tmp_path, monkeypatch)
    with pytest.raises(BootFailed, match="did not start: Error: as asked for"):
        await driver.boot(with_args(spec, "fake.status=152"), begun.append)
    assert len(begun) == 1 and not begun[0].alive


async def test_what_a_dead_one_left_behind_does_not_matter(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("api", "vsock", "control", "console"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(spec.runtime / name))
    machine = await ready(double(tmp_path, monkeypatch), spec)
    await machine.stop(0)


# Its life.


async def test_a_version_whose_pause_is_broken_is_stopped_as_a_process(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = double(tmp_path, monkeypatch, version="1.16.1")
    machine = await ready(driver, spec)
    (pid,) = children(machine.process)

    def stopped() -> bool:
        return "State:\tT" in Path(f"/proc/{pid}/status").read_text()

    async def becomes(wanted: bool) -> None:
        """A signal is there before what it does: a process stops when it next runs."""
        async with asyncio.timeout(PATIENCE):
            while stopped() is not wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert not stopped()
    await machine.pause()
    await becomes(True)
    await machine.release()
    again = await driver.adopt(spec, machine.process)
    assert again.state is State.PAUSED
    await again.resume()
    await becomes(False)
    await again.wait_lifeline()
    assert (await again.lifeline.run(["echo", "on"])).stdout == b"on\n"
    # And one that stands still can be ended, and booted again.
    await again.pause()
    await again.reset()
    await again.wait_lifeline()
    await again.reached(State.READY)
    await again.pause()
    await again.stop()
    assert not again.process.alive


async def test_its_firecracker_dies_with_its_warden(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    machine = await ready(double(tmp_path, monkeypatch), spec)
    (pid,) = children(machine.process)
    machine.process.kill()
    assert await gone(pid)
    await reaches(machine, State.FAILED)
    await machine.stop(0)


async def test_what_outlives_its_warden_is_ended_before_it_is_called_failed(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A jailed Firecracker does: it has changed its user."""
    told: list[object] = []
    stuck = ""

    def end(jails: Jails, owner: Path) -> None:
        told.append(owner)
        if stuck:
            raise StateError(stuck)

    monkeypatch.setattr(firecracker, "_end_jailed", end)
    machine = await ready(double(tmp_path, monkeypatch), spec)
    machine.watch(told.append)
    machine.process.kill()
    await reaches(machine, State.FAILED)
    assert told == [spec.root, State.FAILED]
    stuck = "process 7 does not end"
    with pytest.raises(GuestError, match="process 7 does not end"):
        await machine.stop(0)
    assert machine.state is State.FAILED
    stuck = ""
    await machine.stop(0)
    assert told[-2:] == [spec.root, State.STOPPED]


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_dead_firecracker_is_no_reboot(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signo: int
):
    machine = await ready(double(tmp_path, monkeypatch), spec)
    states: list[State] = []
    machine.watch(states.append)
    (pid,) = children(machine.process)
    os.kill(pid, signo)
    await reaches(machine, State.FAILED)
    assert f"status -{int(signo)}" in machine.reason
    assert State.REBOOTING not in states
    with pytest.raises(MachineLost):
        await machine.reset()
    await machine.stop(0)


async def test_a_term_ends_both(spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = await ready(double(tmp_path, monkeypatch), spec)
    (pid,) = children(machine.process)
    machine.process.kill(signal.SIGTERM)
    assert await in_thread(machine.process.wait_gone, PATIENCE)
    assert await gone(pid)
    await machine.stop(0)


# The warden alone, with a shell in the place of Firecracker.


class Bare:
    """A warden, and connections to it."""

    def __init__(
        self,
        folder: Path,
        script: str,
        stale: Sequence[str] = (),
        log: str = "",
        uid: int | None = None,
    ) -> None:
        argv = ["/bin/sh", "-c", script]
        told = folder / "argv.json"
        facts = {"argv": argv, "folder": str(folder), "stale": list(stale), "log": log}
        facts["uid"] = uid
        told.write_text(json.dumps(facts))
        servers = []
        for name in ("control", "console"):
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(folder / name))
            server.listen(4)
            servers.append(server)
        numbers = [server.fileno() for server in servers]
        self.folder = folder
        self.open: list[socket.socket] = []
        self.process = spawn(
            [sys.executable, "-m", "bugbox.machine.firecracker.warden", told, *map(str, numbers)],
            log_file=folder / "log",
            pass_fds=numbers,
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        for server in servers:
            server.close()

    def connect(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        self.open.append(sock)
        sock.connect(str(self.folder / name))
        return sock

    def end(self) -> None:
        self.process.kill(signal.SIGTERM)
        if not self.process.wait_gone(PATIENCE):
            self.process.kill()
        for sock in self.open:
            sock.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    yield made
    shutil.rmtree(made)


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        data = sock.recv(65536)
        assert data, seen[-200:]
        seen += data
    return seen


def test_a_flood_on_the_console_is_not_kept(folder: Path):
    """Nobody reads 64 MiB: the warden's memory stays small, and the end is there for a reader."""
    script = "head -c 67108864 /dev/zero | tr '\\0' x; echo; echo the end; exec sleep 1000"
    bare = Bare(folder, script)
    try:
        control = bare.connect("control")
        assert json.loads(read_until(control, b"\n")) == {"is": "running"}
        console = bare.connect("console")
        read_until(console, b"the end\n")
        status = Path(f"/proc/{bare.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        assert int(peak.split()[1]) < 64 << 10, peak
        # A second reader takes the first one's place, and what is typed reaches the process.
        control.sendall(b'{"do": "reset"}\n')
        read_until(bare.connect("console"), b"the end\n")
    finally:
        bare.end()


def test_what_is_typed_reaches_it(folder: Path):
    bare = Bare(folder, 'read line; echo "it was $line"; exec sleep 1000')
    try:
        console = bare.connect("console")
        console.sendall(b"typed\n")
        read_until(console, b"it was typed\n")
    finally:
        bare.end()


def test_its_own_log_has_an_end(folder: Path):
    script = "head -c 8388608 /dev/zero | tr '\\0' y >&2; echo done; exec sleep 1000"
    bare = Bare(folder, script)
    try:
        read_until(bare.connect("console"), b"done")
        control = bare.connect("control")
        read_until(control, b"\n")
        control.sendall(b'{"do": "halt"}\n')
        read_until(control, b"halted")
        assert (folder / "log").stat().st_size <= 1 << 20
    finally:
        bare.end()


def test_the_last_words_of_a_kernel_and_nobody_elses_end_it(folder: Path):
    script = (
        "echo 'reboot: System halted'; echo \"$ echo [    1.000001] reboot: Power down\";"
        "echo said; read go; echo '[    1.000001] reboot: Power down'; exec sleep 1000"
    )
    bare = Bare(folder, script)
    try:
        control, console = bare.connect("control"), bare.connect("console")
        read_until(control, b"\n")
        read_until(console, b"said\n")
        console.sendall(b"go\n")
        assert json.loads(read_until(control, b"\n")) == {"event": "off"}
        control.sendall(b'{"do": "reset"}\n')
        assert json.loads(read_until(control, b"\n")) == {"event": "reset", "by": "host"}
        read_until(console, b"said\n")
    finally:
        bare.end()


def test_one_that_ends_well_is_started_again_and_not_too_often(folder: Path):
    began = time.monotonic()
    bare = Bare(folder, "echo begun")
    seen = b""
    try:
        control = bare.connect("control")
        while seen.count(b'"reset"') < 2:
            seen += read_until(control, b"\n")
    finally:
        bare.end()
    # Once a second: the log of a guest that reboots in a loop stays readable.
    assert seen.count(b'"reset"') <= time.monotonic() - began


def test_a_writer_that_it_left_behind_does_not_hold_us_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """It writes for ever into what was its output."""
    read = 0

    def more(fd: int, take: object) -> bool:
        nonlocal read
        read += 1
        assert read < 10_000
        return True

    with socket.socket(socket.AF_UNIX) as control, socket.socket(socket.AF_UNIX) as console:
        warden = wardens.Warden(["/bin/true"], str(folder), [], control, console)
        monkeypatch.setattr(warden, "_read", more)
        warden._start()
        warden._ended()
        assert warden.state == "off" and warden._due > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run as another user")
def test_what_a_jailed_one_left_is_ended_before_the_next_begins(folder: Path):
    uid = 1_900_310_000 + os.getpid() % 10_000
    script = (
        f"setpriv --reuid {uid} --clear-groups -- sleep 1000 </dev/null >/dev/null 2>&1 &"
        f' while [ "$(stat -c %u /proc/$!)" != {uid} ]; do sleep 0.01; done; echo "is $!."'
    )
    bare = Bare(folder, script, uid=uid)
    said = b""
    try:
        control, console = bare.connect("control"), bare.connect("console")
        said += read_until(console, b".\n")
        assert b'"reset"' in read_until(control, b'"reset"')
        first = int(said.split()[1].rstrip(b"."))
        assert start_time(first) is None
        said += read_until(console, b".\n")
    finally:
        bare.end()
        assert _end_all_of(uid) == []


def test_it_is_not_started_beside_what_does_not_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(wardens, "_end_all_of", lambda uid: [7])
    with socket.socket(socket.AF_UNIX) as control, socket.socket(socket.AF_UNIX) as console:
        argv = ["/bin/sh", "-c", f"touch {folder}/started"]
        assert wardens.Warden(argv, str(folder), [], control, console, 1_900_310_000).run() == 1
    assert capfd.readouterr().out == "process 7 of an earlier boot does not end\n"
    assert not (folder / "started").exists()


def test_words_that_are_none_change_nothing(folder: Path):
    bare = Bare(folder, "echo begun; exec sleep 1000")
    try:
        control = bare.connect("control")
        read_until(control, b"\n")
        control.sendall(b'{"do": "dance"}\n{"do": "reset"}\n')
        assert b"reset" in read_until(control, b"\n")
    finally:
        bare.end()
    assert not bare.process.alive


def test_what_lies_in_the_way_is_removed_and_no_link_out_of_the_jail_is_followed(folder: Path):
    """Of a folder that the VMM could write to."""
    outside, root = folder / "outside", folder / "root"
    for each in (outside, root, root / "net"):
        each.mkdir()
    (outside / "kvm").touch()
    (root / "dev").symlink_to(outside)
    for name in ("api", "net/tun"):
        (root / name).touch()
    (root / "firecracker").symlink_to(outside / "kvm")
    for name in ("dev/kvm", "api", "firecracker", "net/tun", "nothing", "no/thing"):
        _remove(str(root), name)
    assert (outside / "kvm").exists()
    assert sorted(path.name for path in root.iterdir()) == ["dev", "net"]
    assert not list((root / "net").iterdir())
    # A folder where a file was, and no folder at all.
    _remove(str(root), "net")
    _remove(str(folder / "gone"), "api")
    assert (root / "net").is_dir()


def test_a_jailed_ones_log_comes_through_a_fifo(folder: Path):
    log = folder / "fifo"
    os.mkfifo(log)
    bare = Bare(folder, f"echo from inside >{log}; echo said; exec sleep 1000", log=str(log))
    try:
        read_until(bare.connect("console"), b"said")
        deadline = time.monotonic() + PATIENCE
        while b"from inside" not in (folder / "log").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        bare.end()
