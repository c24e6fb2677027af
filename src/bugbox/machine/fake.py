# SPDX-License-Identifier: Apache-2.0
"""A driver without a VMM: machines that are a process on this host (fake_guest.py). For tests.

A fake machine lives in a process of its own, outlives us, can be killed and adopted, reboots,
powers itself off and loses its lifeline, all within milliseconds. `MachineSpec.kernel.extra_args`
may ask for faults at boot:

    fake.panic     the kernel panics on the console
    fake.failed    the initramfs says `bugbox: boot failed: ...`
    fake.silent    nothing ever comes
    fake.slow=S    the lifeline answers after S seconds only
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import anyio

from bugbox.descriptor import write_all
from bugbox.errors import BootFailed, GuestError, MachineLost, OutOfResources, StateError
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process, spawn
from bugbox.machine.console import Console
from bugbox.machine.driver import Abilities
from bugbox.machine.fake_guest import FakeGuest
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import TABLE, State, advance
from bugbox.machine.template import Capture, Snapshot

__all__ = ["FakeDriver", "FakeMachine", "FakeOpening", "folder"]

_OVER = (State.STOPPING, State.STOPPED)


def folder(spec: MachineSpec) -> Path:
    """Return the scratch folder that stands for the machine's filesystem."""
    return spec.root / "fake"


def _control(spec: MachineSpec) -> Path:
    return spec.runtime / "qmp"


def _boot_file(spec: MachineSpec) -> Path:
    return spec.root / "boot.json"


class FakeOpening:
    """A fake machine's ports are this host's own."""

    def __init__(self, port: int) -> None:
        self.address = ("127.0.0.1", port)

    async def taken(self) -> bool | None:
        """Nobody stands between: who connected was taken."""
        return True


class FakeMachine:
    """One fake machine, seen from the process that holds it."""

    def __init__(self, spec: MachineSpec, process: Process, state: State) -> None:
        self.spec = spec
        self.process = process
        self._state = state
        self._reason = ""
        self._lifeline = Lifeline(spec.runtime / "lifeline")
        #: Never connected: the fake guest writes its log itself, and whoever follows is at the end.
        self.console = Console(spec.runtime / "console", spec.root / "console.log")
        self._callbacks: list[Callable[[State], None]] = []
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        #: Ends with the hello of this boot, or with what kept it from coming.
        self._boot: asyncio.Task[None] | None = None
        self._resets = 0

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is off or failed."""
        return self._reason

    @property
    def lifeline(self) -> Lifeline:
        """The fake guest's lifeline."""
        return self._lifeline

    def watch(self, callback: Callable[[State], None]) -> None:
        """Call `callback` with every new state; with REBOOTING once for each reboot."""
        self._callbacks.append(callback)

    @contextlib.asynccontextmanager
    async def opening(self, port: int) -> AsyncIterator[FakeOpening]:
        """Open the way there always is."""
        if not self.spec.nics:
            raise GuestError("the machine has no network card")
        yield FakeOpening(port)

    async def connect(self, timeout: float = 20.0) -> str:
        """Connect to the process; return what it says of itself: running, paused or off."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(_control(self.spec))
                break
            except OSError as error:
                if not self.process.alive or asyncio.get_running_loop().time() > deadline:
                    raise MachineLost(f"the fake machine is gone: {error}") from error
                await asyncio.sleep(0.01)
        said = json.loads(await reader.readline() or b'{"is": "gone"}')
        self._listening = asyncio.get_running_loop().create_task(self._listen(reader))
        return str(said["is"])

    def follow_boot(self) -> None:
        """Begin to wait for a hello."""
        if self._boot is not None:
            self._boot.cancel()
        self._lifeline.paused = False
        timeout = self.spec.boot_timeout
        self._boot = asyncio.get_running_loop().create_task(self._lifeline.resynchronize(timeout))

    async def take_up(self, said: str) -> None:
        """Make what it can of a machine that ran on without us."""
        if said in ("paused", "off"):
            self._state = State.PAUSED if said == "paused" else State.OFF
            self._lifeline.paused = True
            return
        with contextlib.suppress(GuestError, OSError, ValueError):
            await self._lifeline.connect(3.0)
            kept = json.loads(_boot_file(self.spec).read_text())
            if self._lifeline.hello and kept["boot_id"] == self._lifeline.hello.boot_id:
                return
        self._state = State.REBOOTING
        self.follow_boot()

    async def wait_lifeline(self) -> None:
        """Wait for the lifeline's hello of this boot."""
        while True:
            if self._state in (State.FAILED, State.OFF, *_OVER):
                kind = BootFailed if self.process.alive else MachineLost
                raise kind(f"the machine did not boot: {self._reason}", detail=self._console())
            boot = self._boot
            if boot is None:
                return
            try:
                await asyncio.wait([boot])
                if boot is self._boot and not boot.cancelled():
                    await boot
                    return
            except GuestError as error:
                self._fail(str(error))

    async def reached(self, target: State) -> None:
        """Take the session's word for a state."""
        self._enter(target)
        hello = self._lifeline.hello
        kept = {"boot_id": hello.boot_id if hello else "", "milestones": self._lifeline.milestones}
        _boot_file(self.spec).write_text(json.dumps(kept))

    async def pause(self) -> None:
        """Let it answer nothing."""
        self._enter(advance(self._state, State.PAUSED))
        self._lifeline.paused = True
        await self._tell("pause")

    async def resume(self) -> None:
        """Let it answer again."""
        if self._state not in (State.PAUSED, State.STALLED):
            raise StateError(f"a machine that is {self._state} cannot be resumed")
        await self._tell("resume")
        self._lifeline.paused = False
        self._enter(State.READY)
        if not self._lifeline.connected:
            self.follow_boot()

    async def reset(self) -> None:
        """Boot it again."""
        if self._state is State.PAUSED:
            self._enter(State.READY)
        again = self._state in (State.OFF, State.FAILED)
        self._enter(State.BOOTING if again else State.REBOOTING)
        before = self._resets
        await self._tell("reset")
        async with asyncio.timeout(10.0):
            while self._resets == before:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def save(self) -> bytes:
        """End it; its state is its boot id and its folder."""
        await self.pause()
        saved = await in_thread(self._saved)
        self.process.kill(signal.SIGKILL)
        await self.stop(5.0)
        return saved

    async def capture(self, wanted: Capture) -> None:
        """Copy its boot id and its folder; it stands still meanwhile."""
        if self._state is not State.READY:
            raise StateError(f"a machine that is {self._state} cannot be copied")
        begun = time.monotonic()
        saved = await in_thread(self._saved)
        try:
            await in_thread(write_all, wanted.state, saved)
        except OSError as error:
            raise OutOfResources("no space is left for a copy of the machine") from error
        wanted.switched = True
        wanted.pause_ms = 1000 * (time.monotonic() - begun)

    async def merge(self, drive: str, images: Sequence[Path]) -> None:
        """Nothing is in its images."""

    def _saved(self) -> bytes:
        hello = self._lifeline.hello
        return (hello.boot_id if hello else "").encode() + b"\n" + _pack(folder(self.spec))

    async def suspend(self, sink: int) -> tuple[int, str]:
        """Write its boot id, and something that stands for its memory."""
        if self._state is not State.PAUSED:
            raise StateError(f"a machine that is {self._state} cannot be saved")
        kept = json.loads(_boot_file(self.spec).read_text())
        data = str(kept["boot_id"]).encode() + b"\n" + bytes(1 << 20)
        await in_thread(write_all, sink, data)
        return len(data), hashlib.sha256(data).hexdigest()

    async def stop(self, grace: float = 5.0) -> None:
        """End it."""
        if self._state is State.STOPPED:
            return
        self._enter(State.STOPPING)
        with contextlib.suppress(GuestError, OSError):
            await self._tell("quit")
        if not await in_thread(self.process.wait_gone, grace):
            self.process.kill(signal.SIGKILL)
            await in_thread(self.process.wait_gone, 10.0)
        await self.release()
        self._enter(State.STOPPED)

    async def release(self) -> None:
        """Let go of its sockets."""
        tasks = [task for task in (self._listening, self._boot) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        await self._lifeline.aclose()

    def _enter(self, state: State, reason: str = "") -> None:
        if state is self._state:
            return
        self._state = advance(self._state, state)
        self._reason = reason
        for callback in self._callbacks:
            callback(state)

    async def _tell(self, what: str) -> None:
        if self._writer is None or self._writer.is_closing():
            raise MachineLost("the fake machine is gone")
        self._writer.write(json.dumps({"do": what}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._heard(json.loads(line)["event"])
        self._fail("the fake machine's process ended")

    def _heard(self, event: str) -> None:
        if self._state in _OVER:
            return
        if event == "reset":
            self._resets += 1
            if self._state is not State.BOOTING:
                self._enter(State.REBOOTING)
            self.follow_boot()
        elif event == "shutdown":
            self._enter(State.OFF, "the guest powered itself off")
            self._silence()
        elif event == "panic":
            self._fail("the kernel panicked or the initramfs gave up")

    def _fail(self, reason: str) -> None:
        if self._state not in (State.FAILED, *_OVER):
            if State.FAILED not in TABLE[self._state]:
                self._state = State.FAILED  # from OFF: its process is gone
            self._enter(State.FAILED, reason)
            self._silence()

    def _silence(self) -> None:
        """Nobody will answer any more: whoever waits for the boot looks at the state."""
        self._lifeline.paused = True
        self._lifeline.port_changed(False)
        if self._boot is not None:
            self._boot.cancel()

    def _console(self) -> str:
        with contextlib.suppress(OSError):
            return (self.spec.root / "console.log").read_text(errors="replace")[-2000:]
        return ""


def _read_all(fd: int) -> bytes:
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _pack(source: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(source, arcname=".")
    return packed.getvalue()


def _unpack(packed: bytes, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target)


class FakeDriver:
    """Starts fake machines."""

    name = "fake"

    @property
    def abilities(self) -> Abilities:
        """What it can do."""
        return Abilities(pause=True, clone=True, fork=True, accelerated=True)

    async def boot(
        self,
        spec: MachineSpec,
        started: Callable[[Process], None],
        *,
        ram: int | None = None,
    ) -> FakeMachine:
        """Start the process and connect."""
        folder(spec).mkdir(parents=True, exist_ok=True)
        if ram is not None:
            os.pwrite(ram, b"fake", 0)
        return await self._run(spec, started)

    async def clone(
        self, spec: MachineSpec, snapshot: Snapshot, started: Callable[[Process], None]
    ) -> FakeMachine:
        """Start a process with the saved one's folder and boot id."""
        return await self._copy(spec, snapshot.state, started)

    async def start_copy(
        self, spec: MachineSpec, state: int, started: Callable[[Process], None]
    ) -> FakeMachine:
        """Start a process with the captured one's folder and boot id."""
        saved = await in_thread(_read_all, state)
        if b"\n" not in saved:
            raise MachineLost("the copy of the machine is not whole")
        return await self._copy(spec, saved, started)

    async def _copy(
        self, spec: MachineSpec, saved: bytes, started: Callable[[Process], None]
    ) -> FakeMachine:
        head, packed = saved.split(b"\n", 1)
        await in_thread(_unpack, packed, folder(spec))
        return await self._run(spec, started, f"fake.boot_id={head.decode()}")

    async def restore(
        self, spec: MachineSpec, saved: int, started: Callable[[Process], None]
    ) -> FakeMachine:
        """Start a process with the saved one's boot id, paused."""
        head = os.pread(saved, 256, 0).split(b"\n", 1)[0].decode()
        machine = await self._run(spec, started, f"fake.boot_id={head}", "fake.paused")
        await machine.take_up("paused")
        return machine

    async def traits(self, spec: MachineSpec) -> dict[str, str]:
        """Tell what there is to tell."""
        return {"argv": f"fake -m {spec.mem_mib}"}

    async def _run(
        self, spec: MachineSpec, started: Callable[[Process], None], *more: str
    ) -> FakeMachine:
        spec.runtime.mkdir(parents=True, exist_ok=True)
        faults = [arg for arg in spec.kernel.extra_args if arg.startswith("fake.")]
        argv: list[str | Path] = [sys.executable, "-m", "bugbox.machine.fake"]
        argv += [spec.root, spec.runtime, *faults, *more]
        log_file = spec.root / "vmm.log"
        paths = os.pathsep.join(path for path in sys.path if path)
        env = {"PYTHONPATH": paths}
        process = await in_thread(spawn, argv, log_file=log_file, env=env)
        machine = FakeMachine(spec, process, State.CREATED)
        try:
            started(process)
            await machine.connect()
            machine._enter(State.BOOTING)
            machine.follow_boot()
        except BaseException:
            process.kill()
            with anyio.CancelScope(shield=True):
                await in_thread(process.wait_gone, 10.0)
                await machine.release()
            raise
        return machine

    async def adopt(self, spec: MachineSpec, process: Process) -> FakeMachine:
        """Take over a machine whose keeper died."""
        if not process.alive:
            raise MachineLost("the fake machine is gone")
        machine = FakeMachine(spec, process, State.READY)
        try:
            await machine.take_up(await machine.connect(5.0))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await machine.release()
            raise
        return machine


class _Process:
    """The other side: what runs in the machine's own process."""

    def __init__(self, root: Path, runtime: Path, faults: list[str]) -> None:
        self.root = root
        self.runtime = runtime
        self.faults = faults
        self.guest = FakeGuest(root / "fake")
        for fault in faults:
            if fault.startswith("fake.boot_id="):
                self.guest.boot_id = fault.partition("=")[2]
                self.guest.copied = True
        self.guest.on_shutdown = lambda name: self.power(name)
        self.state = "running"
        self.writers: set[asyncio.StreamWriter] = set()
        self.done = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def say(self, line: str) -> None:
        with (self.root / "console.log").open("a") as console:
            console.write(line + "\n")

    def event(self, name: str) -> None:
        for writer in self.writers:
            writer.write(json.dumps({"event": name}).encode() + b"\n")

    def power(self, what: str) -> None:
        """The guest asks for `reboot`, `now` or `poweroff`."""
        self.start(self.reboot() if what != "poweroff" else self.off())

    def start(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def reboot(self) -> None:
        self.guest.running.clear()
        await self.guest.restart("boot")
        self.event("reset")
        await self.boot()

    async def off(self) -> None:
        self.state = "off"
        self.guest.running.clear()
        self.event("shutdown")

    async def boot(self) -> None:
        self.state = "running"
        self.guest.running.clear()
        self.say("Linux version fake")
        slow = next((f.partition("=")[2] for f in self.faults if f.startswith("fake.slow=")), "0")
        await asyncio.sleep(float(slow))
        if "fake.panic" in self.faults or "fake.failed" in self.faults:
            panic = "Kernel panic - not syncing: fake"
            self.say(panic if "fake.panic" in self.faults else "bugbox: boot failed: root: fake")
            self.event("panic")
        elif "fake.paused" in self.faults:
            self.faults.remove("fake.paused")
            self.state = "paused"
        elif "fake.silent" not in self.faults:
            self.guest.running.set()

    async def revive(self) -> None:
        """The lifeline was killed, and the init brought it back."""
        await self.guest.restart("revived")

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"is": self.state}).encode() + b"\n")
        self.writers.add(writer)
        if "fake.panic" in self.faults or "fake.failed" in self.faults:
            self.event("panic")
        try:
            while line := await reader.readline():
                await self.do(json.loads(line)["do"])
        except ConnectionError:
            pass
        finally:
            self.writers.discard(writer)
            writer.close()

    async def do(self, what: str) -> None:
        if what == "quit":
            self.done.set()
        elif what == "reset":
            await self.reboot()
        elif what == "pause":
            self.state = "paused"
            self.guest.running.clear()
        elif what == "resume":
            self.state = "running"
            self.guest.running.set()

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.power, "reboot")
        loop.add_signal_handler(signal.SIGUSR2, self.power, "poweroff")
        loop.add_signal_handler(signal.SIGHUP, lambda: self.start(self.revive()))
        loop.add_signal_handler(signal.SIGTERM, self.done.set)
        await self.guest.serve(self.runtime / "lifeline")
        await self.boot()
        server = await asyncio.start_unix_server(self.control, str(self.runtime / "qmp"))
        await self.done.wait()
        server.close()
        self.guest.running.set()
        await self.guest.aclose()


if __name__ == "__main__":
    asyncio.run(_Process(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]).main())
