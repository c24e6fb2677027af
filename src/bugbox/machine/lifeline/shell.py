# SPDX-License-Identifier: Apache-2.0
"""What the rest of bugbox uses of a lifeline: run, terminals, files, and the guest's own affairs.

A `Lifeline` is one object for a machine's whole life. When its connection breaks (the lifeline
was killed, or sent nonsense) whoever waits gets an error at once, and it connects again by
itself as long as the machine's socket is there; a new operation waits a while for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from bugbox.errors import GuestError, MachineLost, UserError
from bugbox.machine.lifeline.channel import Channel, Exit, Refused
from bugbox.machine.lifeline.command import Command, Result, Terminal, finish, send_all
from bugbox.machine.lifeline.connection import Answer, Connection, Hello, Pairs
from bugbox.machine.lifeline.wire import Fields, Tag, printable

__all__ = ["Command", "Exit", "Hello", "Lifeline", "Refused", "Result", "Terminal"]

log = logging.getLogger(__name__)

#: Nothing moved for so long: a transfer of a file is given up.
_STALL = 60.0
#: A file may grow by so much while it is read (those in /proc say that their size is 0).
_GROWTH = 64 << 20
_GONE = "the machine no longer answers"
_GONE_HINT = "undo or reset brings it back"


class Lifeline:
    """The agent in one machine, over the UNIX socket of the machine's port."""

    #: Seconds a new operation waits for a broken connection to come back.
    patience = 10.0

    def __init__(self, path: Path, *, port: int | None = None, factor: float = 1.0) -> None:
        self.path = path
        #: The vsock port in the guest, where `path` is the socket of all its ports.
        self.port = port
        #: Multiplies the time limits of our own making; those that callers give are taken as given.
        self.factor = factor
        #: Answers `bugbox check|hint|story` typed in the guest.
        self.on_ask: Answer | None = None
        self.on_milestone: Callable[[str, int], None] | None = None
        #: Told each time a working connection breaks.
        self.on_lost: Callable[[GuestError], None] | None = None
        #: Told when something is sent to a machine that is paused: it must run on to answer.
        self.on_stirred: Callable[[], None] | None = None
        #: CLOCK_BOOTTIME in ns of each milestone of this boot.
        self.milestones: dict[str, int] = {}
        self._connection: Connection | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()
        self._paused = False

    # The connection.

    @property
    def connected(self) -> bool:
        """Whether a conversation is under way."""
        return self._connection is not None and self._connection.synchronized

    @property
    def hello(self) -> Hello | None:
        """What the lifeline said of itself, while connected."""
        return self._connection.hello if self._connection is not None else None

    @property
    def paused(self) -> bool:
        """Whether the machine's CPUs are stopped, so that its silence means nothing."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self._paused = value
        if self._connection is not None:
            self._connection.paused = value

    @property
    def moved(self) -> float:
        """When anybody last did something in the guest (time.monotonic); 0: not connected.

        A byte either way, or the beginning or end of a command. Calls of our own do not count.
        """
        return self._connection.moved if self._connection is not None else 0.0

    @property
    def working(self) -> bool:
        """Whether somebody waits for the end of a command, a script, a transfer or a call."""
        return self._connection is not None and self._connection.working

    @property
    def dialled(self) -> bool:
        """Whether somebody is connected to one of the guest's ports."""
        return self._connection is not None and self._connection.dialled

    async def connect(self, timeout: float) -> None:
        """Connect and begin a conversation, trying again until `timeout`; MachineLost then.

        May be called at any time: nothing happens while connected.
        """
        await self._stop_reviving()
        if not self.connected:
            await self._connect(timeout, patient=True)

    async def resynchronize(self, timeout: float) -> None:
        """Begin a new conversation on the same socket: the guest has rebooted."""
        await self._stop_reviving()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._connecting:
            connection = self._connection
            if connection is not None and connection.lost is None:
                self.milestones = {}
                try:
                    await connection.synchronize(timeout)
                    return
                except GuestError:
                    if loop.time() >= deadline:
                        raise
        await self._connect(max(0.01, deadline - loop.time()), patient=True)

    def port_changed(self, opened: bool) -> None:
        """Take the VMM's word that the guest opened or closed its end of the port."""
        if not opened and self._connection is not None and self._connection.synchronized:
            self._connection.lose(MachineLost("the lifeline in the guest ended"))

    async def aclose(self) -> None:
        """Let go of the socket; `connect` takes it up again."""
        await self._stop_reviving()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _connect(self, timeout: float, *, patient: bool) -> None:
        """Connect; when not `patient`, a socket where nobody listens is an OSError at once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._connecting:
            while True:
                left = max(0.01, deadline - loop.time())
                try:
                    await self._connect_once(left)
                    return
                except OSError as error:
                    if not patient:
                        raise
                    problem: Exception = error
                except GuestError as error:
                    problem = error
                if loop.time() >= deadline:
                    message = f"the lifeline did not answer within {timeout:g} s"
                    raise MachineLost(message, detail=str(problem)) from problem
                await asyncio.sleep(0.02)

    async def _connect_once(self, timeout: float) -> None:
        if self._connection is not None:
            await self._connection.aclose()
            self._connection = None
        connection = await Connection.connect(self.path, self.port)
        connection.patience *= self.factor
        connection.paused = self._paused
        connection.on_milestone = self._milestone
        connection.on_ask = self._ask
        connection.on_lost = lambda error: self._lost(connection, error)
        connection.on_stirred = self._stirred
        self._connection = connection
        self.milestones = {}
        try:
            await connection.synchronize(timeout)
        except BaseException:
            await connection.aclose()
            raise

    def _milestone(self, name: str, nanoseconds: int) -> None:
        self.milestones[name] = nanoseconds
        if self.on_milestone is not None:
            self.on_milestone(name, nanoseconds)

    async def _ask(self, verb: str, args: list[str]) -> tuple[bytes, int]:
        if self.on_ask is None:
            return b"bugbox: nobody is there to answer\n", 75
        return await self.on_ask(verb, args)

    def _stirred(self) -> None:
        if self.on_stirred is not None:
            self.on_stirred()

    def _lost(self, connection: Connection, error: GuestError) -> None:
        if connection is not self._connection or self._connecting.locked():
            return  # Whoever is connecting gets the error.
        log.info("%s: %s", self.path, error)
        self._reviving = asyncio.get_running_loop().create_task(self._revive())
        if self.on_lost is not None:
            self.on_lost(error)

    async def _revive(self) -> None:
        """Connect again, until it works or the machine's socket is gone."""
        pause = 0.05
        while True:
            try:
                await self._connect(self.patience * self.factor, patient=False)
                return
            except OSError as error:
                log.info("%s: %s", self.path, error)
                return
            except GuestError as error:
                log.info("%s: %s", self.path, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    async def _stop_reviving(self) -> None:
        task, self._reviving = self._reviving, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ready(self) -> Connection:
        """Return the connection; wait a while for a broken one to come back."""
        if not self.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience * self.factor):
                    if self._reviving is not None:
                        await asyncio.wait([self._reviving])
                    async with self._connecting:
                        pass
        if self._connection is None or not self._connection.synchronized:
            raise MachineLost(_GONE, hint=_GONE_HINT)
        return self._connection

    async def _open(self, kind: str, fields: Pairs) -> Channel:
        connection = await self._ready()
        return await connection.open(kind, fields, timeout=30.0 * self.factor)

    async def _call(self, kind: str, fields: Pairs = (), timeout: float = 10.0) -> Fields:
        connection = await self._ready()
        return await connection.call(kind, fields, timeout=timeout)

    # Commands.

    async def run(
        self,
        argv: Sequence[str | bytes],
        *,
        user: str = "root",
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        flags: Sequence[str] = (),
        name: str = "",
        timeout: float = 30.0,
        limit: int = 1 << 20,
    ) -> Result:
        """Run a command to its end. Each stream keeps its first `limit` bytes.

        When `timeout` passes it is killed, and the result says `timed_out`.
        """
        fields = _command_fields(argv, user=user, env=env, cwd=cwd, flags=flags, name=name)
        return await finish(await self._open("exec", fields), input, timeout, limit)

    async def script(
        self,
        text: bytes,
        name: str,
        *,
        args: Sequence[str] = (),
        user: str = "root",
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        flags: Sequence[str] = (),
        timeout: float = 30.0,
        limit: int = 1 << 20,
    ) -> Result:
        """Run a shell script that never lies on the guest's disk, by the injected shell."""
        fields = _command_fields(args, user=user, env=env, cwd=cwd, flags=flags, name=name)
        script: Pairs = [(Tag.SCRIPT, text), *fields]
        return await finish(await self._open("script", script), input, timeout, limit)

    async def command(
        self,
        argv: Sequence[str | bytes],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        flags: Sequence[str] = (),
        name: str = "",
    ) -> Command:
        """Start a command whose streams the caller looks after."""
        fields = _command_fields(argv, user=user, env=env, cwd=cwd, flags=flags, name=name)
        return Command(await self._open("exec", fields))

    # Terminals.

    async def terminal(
        self,
        *,
        user: str = "root",
        rows: int = 24,
        cols: int = 80,
        term: str = "xterm-256color",
        env: Mapping[str, str] | None = None,
        login: bool = True,
        recorded: bool = True,
        rescue: bool = False,
        argv: Sequence[str | bytes] | None = None,
    ) -> Terminal:
        """Open a terminal: `argv` on it if given, else the rescue shell or a real login.

        A login that is not `recorded` leaves lastlog and wtmp as they are.
        """
        flags: tuple[str, ...] = ()
        if not argv and rescue:
            flags = ("rescue",)
        elif not argv and login:
            flags = ("login",) if recorded else ("login", "unrecorded")
        fields = _command_fields(argv or (), user=user, env=env, cwd=None, flags=flags, name="")
        size: Pairs = [(Tag.ROWS, rows), (Tag.COLS, cols), (Tag.TERM, term)]
        return Terminal(await self._open("terminal", [*fields, *size]))

    async def attach(self, id: str, rows: int, cols: int) -> Terminal:
        """Attach to a living terminal; what it printed last comes first."""
        fields: Pairs = [(Tag.TERMINAL, id), (Tag.ROWS, rows), (Tag.COLS, cols)]
        return Terminal(await self._open("attach", fields), id)

    async def terminals(self) -> list[str]:
        """Return the ids of the living terminals."""
        answer = await self._call("terminals")
        return [printable(id, 64) for id in answer.all(Tag.TERMINAL)]

    async def hangup(self, id: str) -> None:
        """End a terminal and what runs on it."""
        await self._call("hangup", [(Tag.TERMINAL, id)])

    # Files and ports.

    async def put(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        size: int | None = None,
        mode: int = 0o644,
        user: str = "root",
        parents: bool = False,
    ) -> None:
        """Write a file; it appears whole or not at all. `size` may be left out for bytes."""
        if size is None:
            if not isinstance(data, bytes):
                raise ValueError("the size of a stream must be given")
            size = len(data)
        fields: list[tuple[Tag, bytes | str | int]] = [
            (Tag.PATH, _whole(path)),
            (Tag.MODE, mode),
            (Tag.USER, user),
            (Tag.SIZE, size),
        ]
        if parents:
            fields.append((Tag.FLAG, "parents"))
        stall = _STALL * self.factor
        channel = await self._open("put", fields)
        try:
            await send_all(channel, data, size, stall)
            channel.send_eof()
            ended = await channel.wait(stall)
        finally:
            channel.close()
        if ended.code:
            raise GuestError(f"writing {path} in the guest ended with status {ended.code}")

    async def get(self, path: str, *, limit: int) -> bytes:
        """Return a regular file's bytes; GuestError when there are more than `limit`."""
        parts: list[bytes] = []
        async with contextlib.aclosing(self.get_stream(path, limit=limit)) as stream:
            async for part in stream:
                parts.append(part)
        return b"".join(parts)

    async def get_stream(
        self, path: str, *, limit: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield a regular file's bytes; use `contextlib.aclosing` when you may stop early.

        Without a `limit` it may be somewhat larger than it was when it was opened, not endless.
        """
        stall = _STALL * self.factor
        channel = await self._open("get", [(Tag.PATH, _whole(path))])
        try:
            assert channel.opened is not None
            size, received = channel.opened.number(Tag.SIZE, default=0), 0
            limit = size + _GROWTH if limit is None else limit
            while max(size, received) <= limit:
                item = await channel.receive(stall)
                if item is None:
                    break
                received += len(item[1])
                if item[0] == 1:
                    yield item[1]
            else:
                raise GuestError(f"{path} in the guest is larger than {limit} bytes")
            ended = await channel.wait(stall)
        finally:
            channel.close()
        if ended.code:
            raise GuestError(f"reading {path} in the guest ended with status {ended.code}")

    async def dial(self, port: int) -> Command:
        """Connect to a TCP port on the guest's 127.0.0.1: send and receive (stream 1)."""
        return Command(await self._open("dial", [(Tag.PORT, port)]))

    # The guest's own affairs.

    async def ping(self, timeout: float = 5.0) -> float:
        """Return the seconds that an answer took."""
        begun = time.monotonic()
        await self._call("ping", timeout=timeout)
        return time.monotonic() - begun

    async def shutdown(self, name: str) -> None:
        """Ask for `poweroff` or `reboot` (the real init does it), or `now` (reboot at once).

        It is answered when the init has been told: early in a boot that takes a while.
        """
        try:
            await self._call("shutdown", [(Tag.NAME, name)], timeout=20.0 * self.factor)
        except MachineLost:
            if name != "now":
                raise

    async def sync(self, timeout: float = 60.0) -> None:
        """Write the root filesystem's dirty pages out."""
        await self._call("sync", timeout=timeout * self.factor)

    async def clock(self, nanoseconds: int | None = None) -> int:
        """Set CLOCK_REALTIME, or leave it; return what it was (ns)."""
        answer = await self._call("clock", [(Tag.TIME, nanoseconds)] if nanoseconds else [])
        return answer.number(Tag.TIME, minimum=-(2**63))

    async def entropy(self, secret: bytes) -> None:
        """Stir 64 secret bytes into the guest's random numbers."""
        await self._call("entropy", [(Tag.SECRET, secret)])

    async def identity(self, name: str = "", machine_id: str = "") -> None:
        """Give it a host name, a machine-id (32 hex digits), or both."""
        fields: Pairs = [(Tag.NAME, name)] if name else []
        await self._call("identity", [*fields, *([(Tag.DATA, machine_id)] if machine_id else [])])

    async def guest_client(self, on: bool) -> None:
        """Show or take away `bugbox` in the guest."""
        await self._call("guest-client", [] if on else [(Tag.FLAG, "off")])


def _whole(value: str | bytes) -> str | bytes:
    """Refuse what would reach the guest cut short."""
    if ("\0" in value) if isinstance(value, str) else (b"\0" in value):
        raise UserError(f"a NUL byte in {value!r}")
    return value


def _command_fields(
    argv: Sequence[str | bytes],
    *,
    user: str,
    env: Mapping[str, str] | None,
    cwd: str | None,
    flags: Sequence[str],
    name: str,
) -> list[tuple[Tag, bytes | str | int]]:
    fields: list[tuple[Tag, bytes | str | int]] = [(Tag.USER, _whole(user))]
    fields += [(Tag.ARG, _whole(arg)) for arg in argv]
    fields += [(Tag.ENV, _whole(f"{key}={value}")) for key, value in (env or {}).items()]
    fields += [(Tag.FLAG, flag) for flag in flags]
    if cwd is not None:
        fields.append((Tag.CWD, _whole(cwd)))
    if name:
        fields.append((Tag.NAME, _whole(name)))
    return fields
