# SPDX-License-Identifier: Apache-2.0
"""One channel of a connection: data both ways under credit, and how it ended.

Memory is bounded by the credit we grant: a guest that sends more, or sends after the end, breaks
a rule and loses its connection. Nothing here does input or output: frames go out through `send`.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bugbox.errors import GuestError
from bugbox.machine.lifeline.wire import (
    MAX_DATA,
    WINDOW,
    Fields,
    Frame,
    Tag,
    Type,
    WireError,
    pack_fields,
    pack_window,
    parse_fields,
    parse_window,
)

__all__ = ["Channel", "Exit", "Refused", "refusal", "within"]

#: We grant in steps of at least this many bytes.
_STEP = 16384
#: Streams that a guest sends data on: standard output and standard error.
_STREAMS = (1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a command ended: a status, or the signal that killed it."""

    status: int | None = None
    signal: int | None = None

    @property
    def code(self) -> int:
        """The status as a shell would say it: 128 + signal for a signal."""
        return self.status if self.status is not None else 128 + (self.signal or 0)


class Refused(GuestError):
    """The lifeline could not do what was asked; `step` says at which step, `errno` why."""

    def __init__(self, message: str, *, step: str = "", errno: int = 0) -> None:
        super().__init__(message)
        self.step = step
        self.errno = errno

    @property
    def kind(self) -> str:
        """Known as a GuestError where only the name travels."""
        return "GuestError"


def refusal(fields: Fields) -> Refused:
    """Return the error that a FAILED or a RESULT with an ERRNO tells of."""
    step = fields.text(Tag.STEP, limit=200)
    message = fields.text(Tag.MESSAGE, limit=500)
    errno = fields.number(Tag.ERRNO, maximum=4095, default=0)
    told = ": ".join(part for part in (step, message) if part) or f"error {errno}"
    return Refused(f"the guest refused: {told}", step=step, errno=errno)


@asynccontextmanager
async def within(seconds: float | None, doing: str) -> AsyncIterator[None]:
    """Limit the time of a block; GuestError saying what was being done when it is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise GuestError(f"{doing} took longer than {seconds:g} s") from None


class Channel:
    """Made by `Connection.open`. Its consumer must receive, or the guest has to wait."""

    def __init__(
        self,
        id: int,
        kind: str,
        send: Callable[[Frame], None],
        writable: Callable[[], Awaitable[None]],
    ) -> None:
        self.id = id
        self.kind = kind
        #: The fields of OPENED.
        self.opened: Fields | None = None
        #: We gave it up and wait for the guest to agree.
        self.closing = False
        self._send = send
        self._writable = writable
        self._queue: deque[tuple[int, bytes | bytearray]] = deque()
        self._may_send = WINDOW
        self._may_receive = WINDOW
        self._owed = 0
        self._end: Exit | GuestError | None = None
        self._ended_streams: set[int] = set()
        self._sent_eof = False
        self._sending = asyncio.Lock()
        self._changed = asyncio.Event()
        #: Set when the guest has said its last frame.
        self.gone = asyncio.Event()

    # What its user calls.

    @property
    def ended(self) -> bool:
        """Whether it is over (data may still wait to be received)."""
        return self._end is not None

    @property
    def pid(self) -> int | None:
        """The command's process id in the guest, if the guest said one."""
        if self.opened is None or not self.opened.has(Tag.PID):
            return None
        return self.opened.number(Tag.PID, maximum=2**31 - 1)

    @property
    def terminal(self) -> str:
        """The terminal's id; empty for other kinds."""
        return self.opened.text(Tag.TERMINAL, limit=64) if self.opened else ""

    async def until_opened(self) -> None:
        """Wait for OPENED; raise what FAILED said."""
        while self.opened is None:
            self._raise_failure()
            if self._end is not None:
                raise GuestError(f"the guest ended {self.kind} before it was open")
            await self._change()

    async def receive(self, stall: float | None = None) -> tuple[int, bytes] | None:
        """Return (stream, data); None after the end. GuestError: it failed, or `stall` passed."""
        while not self._queue:
            self._raise_failure()
            if self._end is not None:
                return None
            async with within(stall, f"waiting for data of {self.kind}"):
                await self._change()
        stream, data = self._queue.popleft()
        self._grant(len(data))
        return stream, bytes(data)

    async def send(self, data: bytes, stall: float | None = None) -> None:
        """Send data on stream 0 as credit allows. After the end it is dropped without a word."""
        async with self._sending:
            rest = memoryview(data)
            while rest:
                async with within(stall, f"sending data of {self.kind}"):
                    await self._writable()
                    while not self._may_send and self._end is None:
                        await self._change()
                self._raise_failure()
                if self._end is not None or self._sent_eof:
                    return
                size = min(len(rest), self._may_send, MAX_DATA)
                self._may_send -= size
                self._send(Frame(Type.DATA, 0, self.id, bytes(rest[:size])))
                rest = rest[size:]

    def send_eof(self) -> None:
        """Say that no more data follows."""
        if self._end is None and not self._sent_eof:
            self._sent_eof = True
            self._send(Frame(Type.EOF, 0, self.id, b""))

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        if self._end is None:
            self._send(Frame(Type.SIGNAL, 0, self.id, pack_fields([(Tag.SIGNO, number)])))

    def resize(self, rows: int, cols: int) -> None:
        """Give a terminal another size."""
        if self._end is None:
            size = pack_fields([(Tag.ROWS, rows), (Tag.COLS, cols)])
            self._send(Frame(Type.RESIZE, 0, self.id, size))

    async def wait(self, stall: float | None = None) -> Exit:
        """Throw away what comes until the end, and return how it ended."""
        while await self.receive(stall) is not None:
            pass
        assert isinstance(self._end, Exit)
        return self._end

    def close(self) -> None:
        """Give it up: what waits is thrown away, and `receive` says that it is over."""
        self._queue.clear()
        if self._end is None:
            self.closing = True
            self._send(Frame(Type.CLOSE, 0, self.id, b""))
            self._finish(Exit(signal=9))

    # What its connection calls.

    def handle(self, frame: Frame) -> bool:
        """Take a frame of the guest's; return whether it was the last one of the channel."""
        if frame.type == Type.OPENED:
            if self.opened is not None:
                raise WireError(f"the guest opened channel {self.id} twice")
            self.opened = parse_fields(frame.payload)
            _ = self.pid  # checked now, so that it cannot fail later
            self._changed.set()
            return False
        if frame.type == Type.FAILED:
            self._last(refusal(parse_fields(frame.payload)))
            return True
        if self.opened is None:
            raise WireError(f"the guest used channel {self.id} before it was open")
        if frame.type == Type.DATA:
            self._take_data(frame.flags, frame.payload)
        elif frame.type == Type.EOF:
            self._take_eof(frame)
        elif frame.type == Type.WINDOW:
            self._may_send += parse_window(frame.payload)
            if self._may_send > WINDOW:
                raise WireError(f"the guest granted {self._may_send} bytes on channel {self.id}")
            self._changed.set()
        elif frame.type == Type.EXIT:
            self._last(_exit(parse_fields(frame.payload)))
            return True
        else:
            raise WireError(f"the guest sent a frame of type {frame.type} on channel {self.id}")
        return False

    def fail(self, error: GuestError) -> None:
        """The connection is gone, or this channel was given up for lost."""
        self._last(error)

    def _last(self, end: Exit | GuestError) -> None:
        self.gone.set()
        self._finish(end)

    def _finish(self, end: Exit | GuestError) -> None:
        if self._end is None:
            self._end = end
        self._changed.set()

    def _take_data(self, stream: int, data: bytes) -> None:
        if stream not in _STREAMS or stream in self._ended_streams:
            raise WireError(f"the guest sent data on stream {stream} of channel {self.id}")
        if not 0 < len(data) <= min(MAX_DATA, self._may_receive):
            raise WireError(
                f"the guest sent {len(data)} bytes on channel {self.id}, "
                f"which may take {self._may_receive}"
            )
        self._may_receive -= len(data)
        if self.closing:
            return
        queue = self._queue
        # Many tiny frames must not become many objects: join what belongs to the same stream.
        # With two streams the last two entries are enough to look at.
        near = next((n for n in (-1, -2) if len(queue) >= -n and queue[n][0] == stream), None)
        if near is None or (near == -1 and len(queue[near][1]) + len(data) > MAX_DATA):
            queue.append((stream, data))
        else:
            joined = queue[near][1]
            if isinstance(joined, bytes):
                joined = bytearray(joined)
                queue[near] = (stream, joined)
            joined += data
        self._changed.set()

    def _take_eof(self, frame: Frame) -> None:
        if frame.flags not in _STREAMS or frame.flags in self._ended_streams or frame.payload:
            raise WireError(f"the guest ended stream {frame.flags} of channel {self.id} wrongly")
        self._ended_streams.add(frame.flags)

    def _grant(self, size: int) -> None:
        self._owed += size
        if self._owed >= _STEP and self._end is None:
            self._may_receive += self._owed
            self._send(Frame(Type.WINDOW, 0, self.id, pack_window(self._owed)))
            self._owed = 0

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _raise_failure(self) -> None:
        if isinstance(self._end, GuestError):
            raise copy.copy(self._end)


def _exit(fields: Fields) -> Exit:
    if fields.has(Tag.SIGNO):
        return Exit(signal=fields.number(Tag.SIGNO, minimum=1, maximum=127))
    return Exit(status=fields.number(Tag.CODE, maximum=255))
