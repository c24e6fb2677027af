# SPDX-License-Identifier: Apache-2.0
"""A guest without a machine: speaks the lifeline's protocol and runs commands on this host.

For tests only, and for commands that a test wrote: nothing is confined. Commands run in a scratch
folder as ourselves; users are ignored; paths of files are taken inside the folder. Its `bin` is
first on PATH and has stand-ins for `systemctl`, `reboot` and `poweroff`.

`FakeGuest` serves one connection after another on a UNIX socket in the running event loop;
`fake.py` runs it in a process of its own, as a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from bugbox.machine.lifeline.wire import (
    MAX_DATA,
    VERSION,
    WINDOW,
    Decoder,
    Fields,
    Frame,
    Tag,
    Type,
    encode,
    pack_fields,
    pack_window,
    parse_fields,
    parse_window,
)

__all__ = ["FakeGuest"]

_SCROLLBACK = 65536
_STAND_INS = {
    "systemctl": "echo running",
    "reboot": 'kill -USR1 "$FAKE_MACHINE"',
    "poweroff": 'kill -USR2 "$FAKE_MACHINE"',
    "sudo": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
}


class _Port:
    """The guest's end of one channel."""

    def __init__(self, id: int, fields: Fields, emit: Callable[[Frame], Awaitable[None]]) -> None:
        self.id = id
        self.fields = fields
        self.emit = emit
        self.input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.on_signal: Callable[[int], None] = lambda number: None
        self.on_resize: Callable[[int, int], None] = lambda rows, cols: None
        self.task: asyncio.Task[None] | None = None
        self._credit = WINDOW
        self._granted = asyncio.Event()

    async def opened(self, *fields: tuple[Tag, bytes | str | int]) -> None:
        await self.emit(Frame(Type.OPENED, 0, self.id, pack_fields(fields)))

    async def send(self, stream: int, data: bytes) -> None:
        while data:
            while not self._credit:
                self._granted.clear()
                await self._granted.wait()
            part = data[: min(self._credit, MAX_DATA)]
            self._credit -= len(part)
            await self.emit(Frame(Type.DATA, stream, self.id, part))
            data = data[len(part) :]

    async def eof(self, stream: int) -> None:
        await self.emit(Frame(Type.EOF, stream, self.id, b""))

    async def exit(self, status: int) -> None:
        """`status` as asyncio has it: negative for a signal."""
        end = (Tag.SIGNO, -status) if status < 0 else (Tag.CODE, status)
        await self.emit(Frame(Type.EXIT, 0, self.id, pack_fields([end])))

    async def receive(self) -> bytes | None:
        data = await self.input.get()
        if data:
            await self.emit(Frame(Type.WINDOW, 0, self.id, pack_window(len(data))))
        return data

    def grant(self, size: int) -> None:
        self._credit += size
        self._granted.set()


class _Terminal:
    """A pseudo terminal that outlives its channel."""

    def __init__(self, id: str, master: int, process: asyncio.subprocess.Process) -> None:
        self.id = id
        self.master = master
        self.process = process
        self.kept = bytearray()
        self.port: _Port | None = None
        self.over = False
        self.changed = asyncio.Event()

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def read(self) -> None:
        """Called when there is output."""
        try:
            data = os.read(self.master, MAX_DATA)
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
            self.over = True
        self.kept += data
        if self.port is None:
            del self.kept[:-_SCROLLBACK]
        elif len(self.kept) >= _SCROLLBACK:
            asyncio.get_running_loop().remove_reader(self.master)  # until it is taken
        self.changed.set()

    def listen(self) -> None:
        if not self.over:
            asyncio.get_running_loop().add_reader(self.master, self.read)


class FakeGuest:
    """The lifeline of a guest that is not there. Its folder is `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boot_id = str(uuid.uuid4())
        self.started = "boot"
        #: Clear: nothing is answered, as when the virtual CPUs stand still.
        self.running = asyncio.Event()
        self.running.set()
        self.on_shutdown: Callable[[str], None] = lambda name: None
        self.calls: list[tuple[str, Fields]] = []
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ports: dict[int, _Port] = {}
        self._terminals: dict[str, _Terminal] = {}
        self._counter = 0
        #: It is a clone, so its terminals are those of another process.
        self.copied = False
        #: Its wall clock minus the host's, ns.
        self.clock_offset = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, path: Path) -> None:
        """Listen on a UNIX socket."""
        (self.root / "bin").mkdir(parents=True, exist_ok=True)
        for name, text in _STAND_INS.items():
            stand_in = self.root / "bin" / name
            if not stand_in.exists():
                stand_in.write_text(f"#!/bin/sh\n{text}\n")
                stand_in.chmod(0o755)
        if not self._hostname.exists():
            self._name("bugbox")
        self._server = await asyncio.start_unix_server(self._serve, str(path))

    @property
    def _hostname(self) -> Path:
        return self.root / "proc/sys/kernel/hostname"

    def _name(self, name: str) -> None:
        for path in (self._hostname, self.root / "etc/hostname"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name + "\n")

    async def aclose(self) -> None:
        """End everything it started."""
        await self.restart("boot")
        for terminal in list(self._terminals.values()):
            await self._hang_up(terminal)
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()
        if self._serving:
            _, late = await asyncio.wait(self._serving, timeout=2.0)
            for task in late:
                task.cancel()
        await asyncio.sleep(0)  # pipes close in a callback

    async def restart(self, started: str) -> None:
        """Forget the conversation: the guest booted again, or its lifeline was `revived`."""
        self.started = started
        # Before the terminals end: a machine that goes has no time left to tell of their end.
        await self._close_ports()
        if started == "boot":
            self.boot_id = str(uuid.uuid4())
            for terminal in list(self._terminals.values()):
                await self._hang_up(terminal)
        self._hunting = True

    async def ask(self, verb: str, *args: str) -> None:
        """Somebody in the guest typed `bugbox VERB`. The answer lands in `answers`."""
        self._counter += 1
        fields: list[tuple[Tag, bytes | str | int]] = [(Tag.ID, self._counter), (Tag.NAME, verb)]
        await self._emit(
            Frame(Type.ASK, 0, 0, pack_fields(fields + [(Tag.ARG, arg) for arg in args]))
        )

    answers: list[Fields]
    _hunting = True

    # The connection.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = writer
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        self.answers = []
        decoder = Decoder(strict=False)
        decoder.hunt()
        self._hunting = True
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.running.wait()
                for frame in decoder.feed(data):
                    await self._handle(frame)
        if self._writer is writer:
            await self._close_ports()
            self._writer = None
        writer.close()

    async def _emit(self, frame: Frame) -> None:
        await self.running.wait()
        writer = self._writer
        if writer is not None and not writer.is_closing():
            writer.write(encode(frame))
            with contextlib.suppress(ConnectionError):
                await writer.drain()

    async def _handle(self, frame: Frame) -> None:
        if frame.type == Type.SYNC:
            await self._begin(frame)
        elif self._hunting:
            return
        elif frame.type == Type.OPEN:
            self._open(frame)
        elif frame.type == Type.CALL:
            await self._call(parse_fields(frame.payload))
        elif frame.type == Type.ANSWER:
            self.answers.append(parse_fields(frame.payload))
        elif (port := self._ports.get(frame.channel)) is not None:
            await self._handle_port(port, frame)

    async def _begin(self, frame: Frame) -> None:
        await self._close_ports()
        self._hunting = False
        await self._emit(frame)
        hello: list[tuple[Tag, bytes | str | int]] = [
            (Tag.VERSION, VERSION),
            (Tag.BOOT_ID, self.boot_id),
            (Tag.STARTED, self.started),
            (Tag.TIME, time.clock_gettime_ns(time.CLOCK_BOOTTIME)),
        ]
        hello += [(Tag.TERMINAL, id) for id in self._terminals]
        await self._emit(Frame(Type.HELLO, 0, 0, pack_fields(hello)))
        for number, name in enumerate(("lifeline", "modules", "root", "init"), 1):
            milestone = pack_fields([(Tag.NAME, name), (Tag.TIME, number * 1_000_000)])
            await self._emit(Frame(Type.MILESTONE, 0, 0, milestone))

    async def _handle_port(self, port: _Port, frame: Frame) -> None:
        if frame.type == Type.DATA:
            port.input.put_nowait(frame.payload)
        elif frame.type == Type.EOF:
            port.input.put_nowait(None)
        elif frame.type == Type.WINDOW:
            port.grant(parse_window(frame.payload))
        elif frame.type == Type.SIGNAL:
            port.on_signal(parse_fields(frame.payload).number(Tag.SIGNO))
        elif frame.type == Type.RESIZE:
            size = parse_fields(frame.payload)
            port.on_resize(size.number(Tag.ROWS), size.number(Tag.COLS))
        elif frame.type == Type.CLOSE and port.task is not None:
            del self._ports[port.id]
            port.task.cancel()
            await asyncio.gather(port.task, return_exceptions=True)
            await port.exit(-signal.SIGKILL)

    def _open(self, frame: Frame) -> None:
        port = _Port(frame.channel, parse_fields(frame.payload), self._emit)
        self._ports[port.id] = port
        port.task = asyncio.get_running_loop().create_task(self._run_port(port))

    async def _run_port(self, port: _Port) -> None:
        kinds = {
            "exec": self._exec,
            "script": self._script,
            "terminal": self._terminal,
            "attach": self._attach,
            "put": self._put,
            "get": self._get,
            "dial": self._dial,
        }
        kind = port.fields.text(Tag.KIND)
        try:
            if kind not in kinds:
                raise OSError(22, f"unknown kind {kind}")
            status = await kinds[kind](port)
            self._ports.pop(port.id, None)
            await port.exit(status)
        except OSError as error:
            self._ports.pop(port.id, None)
            fields: list[tuple[Tag, bytes | str | int]] = [
                (Tag.ERRNO, error.errno or 5),
                (Tag.STEP, str(error.filename or kind)),
                (Tag.MESSAGE, error.strerror or str(error)),
            ]
            await port.emit(Frame(Type.FAILED, 0, port.id, pack_fields(fields)))

    async def _close_ports(self) -> None:
        ports, self._ports = list(self._ports.values()), {}
        tasks = [port.task for port in ports if port.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Commands.

    def _environment(self, fields: Fields) -> dict[str, str]:
        user = fields.text(Tag.USER) or "root"
        path = f"{self.root}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        given = (os.fsdecode(value).partition("=") for value in fields.all(Tag.ENV))
        return {
            "HOME": str(self.root),
            "USER": user,
            "LOGNAME": user,
            "SHELL": "/bin/sh",
            "PATH": path,
            "LANG": "C.UTF-8",
            "FAKE_ROOT": str(self.root),
            "FAKE_MACHINE": str(os.getpid()),
            **{name: value for name, _, value in given},
        }

    def _inside(self, raw: bytes) -> Path:
        """Return where a guest's path lies in the scratch folder."""
        return self.root / os.fsdecode(raw).lstrip("/")

    def _cwd(self, fields: Fields) -> Path:
        wanted = fields.get(Tag.CWD)
        return self._inside(wanted) if wanted else self.root

    async def _exec(self, port: _Port) -> int:
        return await self._spawn(port, [os.fsdecode(arg) for arg in port.fields.all(Tag.ARG)])

    async def _script(self, port: _Port) -> int:
        name = port.fields.text(Tag.NAME) or "script"
        folder = self.root / ".script"
        folder.mkdir(exist_ok=True)
        path = folder / f"{port.id}-{name.replace('/', '_')}"
        path.write_bytes(port.fields.first(Tag.SCRIPT))
        try:
            args = [os.fsdecode(arg) for arg in port.fields.all(Tag.ARG)]
            return await self._spawn(port, ["/bin/sh", str(path), *args])
        finally:
            path.unlink(missing_ok=True)

    async def _spawn(self, port: _Port, argv: list[str]) -> int:
        pipe = asyncio.subprocess.PIPE
        try:
            child = await _start(
                asyncio.create_subprocess_exec(
                    *argv,
                    stdin=pipe,
                    stdout=pipe,
                    stderr=pipe,
                    cwd=self._cwd(port.fields),
                    env=self._environment(port.fields),
                    start_new_session=True,
                )
            )
        except OSError as error:
            await port.opened()
            await port.send(2, f"{argv[0]}: {error.strerror}\n".encode())
            return 127 if isinstance(error, FileNotFoundError) else 126
        port.on_signal = lambda number: _kill_group(child.pid, number)
        assert child.stdin and child.stdout and child.stderr
        feeding = asyncio.get_running_loop().create_task(_feed(port, child.stdin))
        reading = [
            asyncio.get_running_loop().create_task(_pump(port, 1, child.stdout)),
            asyncio.get_running_loop().create_task(_pump(port, 2, child.stderr)),
        ]
        try:
            await port.opened((Tag.PID, child.pid))
            status = await _ended(child)
            await asyncio.wait(reading, timeout=0.5)
            return status
        finally:
            if child.returncode is None:
                _kill_group(child.pid, signal.SIGKILL)
                await _ended(child)
            for task in (feeding, *reading):
                task.cancel()
            await asyncio.gather(feeding, *reading, return_exceptions=True)
            _let_go(child)

    # Terminals.

    async def _terminal(self, port: _Port) -> int:
        argv = [os.fsdecode(arg) for arg in port.fields.all(Tag.ARG)] or ["/bin/sh", "-i"]
        master, slave = pty.openpty()
        env = self._environment(port.fields)
        env.update(TERM=port.fields.text(Tag.TERM) or "dumb", PS1="$ ")
        try:
            child = await _start(
                asyncio.create_subprocess_exec(
                    *argv,
                    stdin=slave,
                    stdout=slave,
                    stderr=slave,
                    cwd=self._cwd(port.fields),
                    env=env,
                    start_new_session=True,
                    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                )
            )
        except OSError:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self._counter += 1
        terminal = _Terminal(f"t{self._counter}", master, child)
        self._terminals[terminal.id] = terminal
        return await self._use(terminal, port)

    async def _attach(self, port: _Port) -> int:
        terminal = self._terminals.get(port.fields.text(Tag.TERMINAL))
        if terminal is None and self.copied:
            # A process cannot be copied: a new shell stands for the one of the saved machine.
            return await self._terminal(port)
        if terminal is None:
            raise OSError(2, "no such terminal", "attach")
        return await self._use(terminal, port)

    async def _use(self, terminal: _Terminal, port: _Port) -> int:
        before, terminal.port = terminal.port, port
        if before is not None and before.task is not None:
            self._ports.pop(before.id, None)
            before.task.cancel()
            taken = pack_fields([(Tag.ERRNO, 16), (Tag.STEP, "taken over"), (Tag.MESSAGE, "")])
            await port.emit(Frame(Type.FAILED, 0, before.id, taken))
        terminal.resize(port.fields.number(Tag.ROWS), port.fields.number(Tag.COLS))
        terminal.listen()
        port.on_resize = terminal.resize
        port.on_signal = lambda number: _kill_group(os.tcgetpgrp(terminal.master), number)
        await port.opened((Tag.TERMINAL, terminal.id), (Tag.PID, terminal.process.pid))
        typing = asyncio.get_running_loop().create_task(_type(port, terminal.master))
        try:
            while terminal.kept or not terminal.over:
                if terminal.kept:
                    data = bytes(terminal.kept[:MAX_DATA])
                    await port.send(1, data)
                    del terminal.kept[: len(data)]
                    terminal.listen()
                else:
                    terminal.changed.clear()
                    await terminal.changed.wait()
            await port.eof(1)
            status = await _ended(terminal.process)
            await self._hang_up(terminal)
            return status
        finally:
            typing.cancel()
            if terminal.port is port:
                terminal.port = None

    async def _hang_up(self, terminal: _Terminal) -> None:
        if self._terminals.pop(terminal.id, None) is None:
            return
        if terminal.process.returncode is None:
            _kill_group(terminal.process.pid, signal.SIGHUP)
            _kill_group(terminal.process.pid, signal.SIGKILL)
            await terminal.process.wait()
        asyncio.get_running_loop().remove_reader(terminal.master)
        os.close(terminal.master)
        terminal.over = True
        terminal.changed.set()

    # Files and ports.

    async def _put(self, port: _Port) -> int:
        path = self._inside(port.fields.first(Tag.PATH))
        if b"parents" in port.fields.all(Tag.FLAG):
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{port.id}")
        size, written = port.fields.number(Tag.SIZE), 0
        try:
            with temporary.open("wb") as target:
                await port.opened()
                while (data := await port.receive()) is not None:
                    written += len(data)
                    target.write(data)
            if written != size:
                raise OSError(5, f"{written} bytes came, {size} were promised", "put")
            temporary.chmod(port.fields.number(Tag.MODE))
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        return 0

    async def _get(self, port: _Port) -> int:
        path = self._inside(port.fields.first(Tag.PATH))
        with path.open("rb") as source:
            stat = os.fstat(source.fileno())
            await port.opened((Tag.SIZE, stat.st_size), (Tag.MODE, stat.st_mode & 0o7777))
            while data := source.read(MAX_DATA):
                await port.send(1, data)
        await port.eof(1)
        return 0

    async def _dial(self, port: _Port) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.fields.number(Tag.PORT))
        await port.opened()
        feeding = asyncio.get_running_loop().create_task(_feed(port, writer))
        try:
            await _pump(port, 1, reader)
        finally:
            feeding.cancel()
            writer.close()
        return 0

    # Calls.

    async def _call(self, fields: Fields) -> None:
        kind = fields.text(Tag.KIND)
        self.calls.append((kind, fields))
        answer: list[tuple[Tag, bytes | str | int]] = [(Tag.ID, fields.number(Tag.ID))]
        if kind in self._refused():
            answer += [(Tag.ERRNO, 1), (Tag.STEP, kind), (Tag.MESSAGE, "refused by the test")]
        elif kind == "ping":
            answer.append((Tag.TIME, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))
        elif kind == "clock":
            answer.append((Tag.TIME, time.time_ns() + self.clock_offset))
            if fields.all(Tag.TIME):
                self.clock_offset = fields.number(Tag.TIME) - time.time_ns()
        elif kind == "identity":
            self._take_identity(fields)
        elif kind == "terminals":
            answer += [(Tag.TERMINAL, id) for id in self._terminals]
        elif kind == "hangup":
            terminal = self._terminals.get(fields.text(Tag.TERMINAL))
            if terminal is None:
                answer += [(Tag.ERRNO, 2), (Tag.STEP, kind), (Tag.MESSAGE, "no such terminal")]
            else:
                await self._hang_up(terminal)
        elif kind not in ("sync", "entropy", "guest-client", "shutdown"):
            answer += [(Tag.ERRNO, 22), (Tag.STEP, kind), (Tag.MESSAGE, "unknown kind")]
        await self._emit(Frame(Type.RESULT, 0, 0, pack_fields(answer)))
        if kind == "shutdown":
            self.on_shutdown(fields.text(Tag.NAME))

    def _refused(self) -> list[str]:
        """Calls that a test wants to see fail: the words of a file."""
        try:
            return (self.root / "refuse").read_text().split()
        except FileNotFoundError:
            return []

    def _take_identity(self, fields: Fields) -> None:
        if fields.all(Tag.NAME):
            self._name(fields.text(Tag.NAME))
        if fields.all(Tag.DATA):
            (self.root / "etc/machine-id").write_text(fields.text(Tag.DATA) + "\n")


async def _start(
    starting: Coroutine[None, None, asyncio.subprocess.Process],
) -> asyncio.subprocess.Process:
    """Start a process whole or not at all, also when cancelled on the way."""
    task = asyncio.get_running_loop().create_task(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        child = await task
        _kill_group(child.pid, signal.SIGKILL)
        await _ended(child)
        _let_go(child)
        raise


def _let_go(child: asyncio.subprocess.Process) -> None:
    """Close its pipes. One that nobody reads any more would keep them open for good."""
    child._transport.close()  # type: ignore[attr-defined]


async def _ended(child: asyncio.subprocess.Process) -> int:
    """Wait for the process itself; its own `wait` also waits for whoever holds its pipes."""
    while child.returncode is None:  # noqa: ASYNC110
        await asyncio.sleep(0.003)
    return child.returncode


async def _pump(port: _Port, stream: int, source: asyncio.StreamReader) -> None:
    while data := await source.read(MAX_DATA):
        await port.send(stream, data)
    await port.eof(stream)


async def _feed(port: _Port, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while (data := await port.receive()) is not None:
            target.write(data)
            await target.drain()
    with contextlib.suppress(ConnectionError, OSError):
        if target.can_write_eof():
            target.write_eof()


async def _type(port: _Port, master: int) -> None:
    with contextlib.suppress(OSError):
        while (data := await port.receive()) is not None:
            os.write(master, data)


def _kill_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
