# SPDX-License-Identifier: Apache-2.0
"""One connection to a lifeline: the conversation's start, channels, calls, questions, its end.

The guest at the other end is hostile. A rule it breaks ends the connection with a GuestError; an
end of file ends it with MachineLost. Either way every waiting call is told at once, and nothing
that a guest sends makes us hold more than a bounded amount of memory:

- what arrives is cut into frames at once; data beyond a channel's credit breaks a rule;
- at most 64 channels, 32 milestones and 4 open questions, and questions no faster than a trickle;
- what we answer is cut off when the guest does not read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import fcntl
import logging
import os
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import GuestError, MachineLost, UserError
from bugbox.machine.lifeline.channel import Channel, refusal, within
from bugbox.machine.lifeline.vsock import dial
from bugbox.machine.lifeline.wire import (
    MAX_DATA,
    VERSION,
    Decoder,
    Fields,
    Frame,
    Tag,
    Type,
    WireError,
    conversation_start,
    encode,
    pack_fields,
    parse_fields,
    printable,
    sync_frame,
)

__all__ = ["Answer", "Connection", "Hello", "Pairs"]

log = logging.getLogger(__name__)

Pairs = Iterable[tuple[Tag, bytes | str | int]]
#: Answers a question from inside: its verb and arguments to (text, exit status).
Answer = Callable[[str, list[str]], Awaitable[tuple[bytes, int]]]

MAX_CHANNELS = 64
MAX_MILESTONES = 32
MAX_ASKS = 4
#: Questions a guest may ask at once, and how many a second are added to that.
ASK_BURST, ASK_RATE = 16.0, 2.0
ASK_SECONDS = 900.0
MAX_ANSWER = 65536
#: Written but not taken by the guest: above the first we wait, above the second we give up.
_SOON_FULL, _TOO_FULL = 256 * 1024, 8 * 1024 * 1024
#: Frames that ask something of the guest: a machine that rests has to be woken for them.
_STIRRING = frozenset({Type.OPEN, Type.CALL, Type.DATA, Type.EOF, Type.SIGNAL})
#: Channels whose end somebody waits for; the others may be silent for days.
_WORK = frozenset({"exec", "script", "put", "get"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a lifeline says of itself at the start of a conversation."""

    boot_id: str
    #: `boot`, or `revived` after it was killed.
    started: str
    #: CLOCK_BOOTTIME of the guest, ns.
    time: int
    #: Terminals that live, detached.
    terminals: tuple[str, ...]


class Connection(asyncio.Protocol):
    """Made by `connect`; usable after `synchronize`; of no use any more once `lost` is set."""

    #: Seconds without a frame after which a guest that owes us something is asked for a sign.
    quiet = 5.0
    #: Seconds it then has to give one, and to agree to a CLOSE.
    patience = 15.0

    def __init__(self) -> None:
        self.on_milestone: Callable[[str, int], None] | None = None
        self.on_ask: Answer | None = None
        self.on_lost: Callable[[GuestError], None] | None = None
        #: Something is sent to a machine whose virtual CPUs are stopped.
        self.on_stirred: Callable[[], None] | None = None
        #: When a channel was opened or ended, or last had data either way (time.monotonic).
        self.moved = time.monotonic()
        #: The virtual CPUs are stopped: silence means nothing.
        self.paused = False
        self.lost: GuestError | None = None
        self.hello: Hello | None = None
        self.milestones: dict[str, int] = {}
        self._transport: asyncio.Transport | None = None
        self._decoder = Decoder()
        self._started = False
        self._greeted: asyncio.Future[Hello] | None = None
        self._channels: dict[int, Channel] = {}
        self._last_channel = 0
        self._room = asyncio.Event()
        self._calls: dict[int, asyncio.Future[Fields]] = {}
        self._last_call = 0
        self._asks: dict[int, asyncio.Task[None]] = {}
        self._ask_allowance = ASK_BURST
        self._ask_time = 0.0
        self._writable = asyncio.Event()
        self._closed = asyncio.Event()
        self._heard = 0.0
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, path: Path, port: int | None = None) -> Connection:
        """Connect to a UNIX socket; OSError when nobody listens there.

        With `port` it is a VMM's, which passes us on to that vsock port of the guest.
        """
        loop = asyncio.get_running_loop()
        if port is None:
            _, connection = await loop.create_unix_connection(cls, str(path))
        else:
            sock = await dial(path, port)
            _, connection = await loop.create_unix_connection(cls, sock=sock)
        return connection

    @property
    def synchronized(self) -> bool:
        """Whether channels may be opened."""
        return self.hello is not None and self.lost is None

    @property
    def working(self) -> bool:
        """Whether a command, a script, a transfer or a call has not ended yet."""
        return bool(self._calls) or any(c.kind in _WORK for c in self._channels.values())

    @property
    def dialled(self) -> bool:
        """Whether somebody is connected to one of the guest's ports."""
        return any(channel.kind == "dial" for channel in self._channels.values())

    # The conversation's start and end.

    async def synchronize(self, timeout: float) -> Hello:
        """Begin a conversation; every channel and call of an earlier one is lost."""
        self._forget(MachineLost("the conversation with the guest began anew"))
        pause = 1.0
        greeted = self._start_conversation()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    with contextlib.suppress(TimeoutError):
                        return await asyncio.wait_for(asyncio.shield(greeted), pause)
                    # Ask again only when the last start was taken: a machine that still boots
                    # finds one, not one a second.
                    if self.lost is None and self._untaken() == 0:
                        greeted = self._start_conversation()
                        pause = min(pause * 1.5, 10.0)
        except TimeoutError:
            message = f"the lifeline did not answer within {timeout:g} s"
            raise MachineLost(message) from None

    def _start_conversation(self) -> asyncio.Future[Hello]:
        self._check_lost()
        assert self._transport is not None
        nonce = os.urandom(16)
        self._decoder.hunt(sync_frame(nonce))
        self._started = True
        if self._greeted is None or self._greeted.done():
            self._greeted = asyncio.get_running_loop().create_future()
        self._transport.write(conversation_start(nonce))
        return self._greeted

    def _untaken(self) -> int:
        """Bytes written that the other end has not read yet."""
        assert self._transport is not None
        waiting = self._transport.get_write_buffer_size()
        handle = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, bytes(4))
            waiting += struct.unpack("i", answer)[0]
        return waiting

    async def aclose(self) -> None:
        """End it. Channels and calls fail with MachineLost; `on_lost` is not called."""
        self.on_lost = None
        self.lose(MachineLost("the connection to the guest was closed"))
        if self._watch is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(self._watch, return_exceptions=True)
        if self._transport is not None:
            await self._closed.wait()

    def lose(self, error: GuestError) -> None:
        """Give the connection up: tell everybody who waits."""
        if self.lost is not None:
            return
        self.lost = error
        if self._transport is not None:
            self._transport.abort()
        self._forget(error)
        if self._greeted is not None and not self._greeted.done():
            self._greeted.set_exception(error)
            self._greeted.exception()  # looked at: nobody needs to wait for it
        if self._watch is not None:
            self._watch.cancel()
        self._writable.set()
        if self.on_lost is not None:
            self.on_lost(error)

    def _forget(self, error: GuestError) -> None:
        self.hello = None
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(error)
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(copy.copy(error))
        for task in self._asks.values():
            task.cancel()
        self._asks.clear()
        self._room.set()

    def _check_lost(self) -> None:
        if self.lost is not None:
            raise copy.copy(self.lost)

    # What the host asks for.

    async def open(self, kind: str, fields: Pairs, timeout: float = 30.0) -> Channel:
        """Open a channel; GuestError when the guest refuses or takes too long."""
        payload = _packed([(Tag.KIND, kind), *fields])
        channel: Channel | None = None
        try:
            async with within(timeout, f"opening {kind}"):
                while len(self._channels) >= MAX_CHANNELS:
                    self._room.clear()
                    await self._room.wait()
                await self._writing()
                self._usable()
                self._last_channel += 1
                channel = Channel(self._last_channel, kind, self._channel_send, self._writing)
                self._channels[channel.id] = channel
                self.moved = time.monotonic()
                self._send(Frame(Type.OPEN, 0, channel.id, payload))
                await channel.until_opened()
        except BaseException:
            if channel is not None:
                channel.close()
            raise
        return channel

    async def call(self, kind: str, fields: Pairs = (), timeout: float = 10.0) -> Fields:
        """Ask the lifeline something that it answers at once."""
        self._usable()
        self._last_call += 1
        number = self._last_call
        payload = _packed([(Tag.ID, number), (Tag.KIND, kind), *fields])
        future: asyncio.Future[Fields] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            async with within(timeout, f"the lifeline's answer to {kind}"):
                self._send(Frame(Type.CALL, 0, 0, payload))
                return await future
        finally:
            self._calls.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()

    def _usable(self) -> None:
        self._check_lost()
        if self.hello is None:
            raise MachineLost("the conversation with the guest has not begun")

    def _channel_send(self, frame: Frame) -> None:
        """Send for a channel. A CLOSE must be agreed to in time."""
        if self._channels.get(frame.channel) is None:
            return
        if frame.type == Type.DATA:
            self.moved = time.monotonic()
        self._send(frame)
        if frame.type == Type.CLOSE:
            loop = asyncio.get_running_loop()
            loop.call_later(self.patience, self._check_closed, frame.channel)

    def _check_closed(self, id: int) -> None:
        if id not in self._channels or self.lost is not None:
            return
        if self.paused:
            asyncio.get_running_loop().call_later(self.patience, self._check_closed, id)
        else:
            self.lose(MachineLost("the lifeline did not close a channel in time"))

    def _send(self, frame: Frame) -> None:
        if self._transport is None or self.lost is not None:
            return
        if self.paused and frame.type in _STIRRING and self.on_stirred is not None:
            self.on_stirred()
        self._transport.write(encode(frame))
        if self._transport.get_write_buffer_size() > _TOO_FULL:
            self.lose(MachineLost("the guest does not read what it is sent"))

    async def _writing(self) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        self._check_lost()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=_SOON_FULL)
        self._transport = transport
        self._writable.set()

    def pause_writing(self) -> None:
        """Called by asyncio."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._closed.set()
        why = f": {exc}" if exc else ""
        self.lose(MachineLost(f"the connection to the machine was lost{why}"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio. No error of the guest's making leaves here."""
        if not self._started or self.lost is not None:
            return
        self._heard = asyncio.get_running_loop().time()
        try:
            for frame in self._decoder.feed(data):
                self._handle(frame)
                if self.lost is not None:
                    return
        except GuestError as error:
            # As text: a kept record of the error itself would hold the whole connection.
            log.info("the guest broke a rule: %s", str(error))
            self.lose(error)
        except Exception as error:
            log.exception("a frame of the guest's could not be handled")
            self.lose(GuestError(f"a frame of the guest's could not be handled: {error!r}"))

    # What the guest says.

    def _handle(self, frame: Frame) -> None:
        if frame.channel:
            self._handle_channel(frame)
        elif frame.type == Type.SYNC:
            self._handle_sync()
        elif frame.type == Type.HELLO:
            self._handle_hello(parse_fields(frame.payload))
        elif self.hello is None:
            raise WireError("the guest spoke before its hello")
        elif frame.type == Type.MILESTONE:
            self._handle_milestone(parse_fields(frame.payload))
        elif frame.type == Type.RESULT:
            self._handle_result(parse_fields(frame.payload))
        elif frame.type == Type.ASK:
            self._handle_ask(parse_fields(frame.payload))
        elif frame.type == Type.FAILED:
            raise GuestError(str(refusal(parse_fields(frame.payload))))
        else:
            raise WireError(f"the guest sent a frame of type {frame.type}")

    def _handle_channel(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise WireError(f"the guest sent a frame on channel {frame.channel}, which is not open")
        if frame.type in (Type.DATA, Type.EXIT):
            self.moved = time.monotonic()
        if channel.handle(frame):
            del self._channels[frame.channel]
            self._room.set()

    def _handle_sync(self) -> None:
        # The decoder lets exactly one through while it hunts; in a conversation it has no place.
        if self.hello is not None or self._greeted is None or self._greeted.done():
            raise WireError("the guest sent a SYNC in the middle of a conversation")

    def _handle_hello(self, fields: Fields) -> None:
        if self._greeted is None or self._greeted.done():
            raise MachineLost("the lifeline began anew")
        version = fields.number(Tag.VERSION)
        if version != VERSION:
            raise GuestError(f"the lifeline speaks version {version}, we speak {VERSION}")
        self.hello = Hello(
            boot_id=fields.text(Tag.BOOT_ID, limit=64),
            started=fields.text(Tag.STARTED, limit=32),
            time=fields.number(Tag.TIME),
            terminals=tuple(printable(id, 64) for id in fields.all(Tag.TERMINAL)),
        )
        self.milestones = {}
        self._greeted.set_result(self.hello)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    def _handle_milestone(self, fields: Fields) -> None:
        name, time = printable(fields.first(Tag.NAME), 64), fields.number(Tag.TIME)
        if name not in self.milestones and len(self.milestones) >= MAX_MILESTONES:
            raise WireError(f"the guest sent more than {MAX_MILESTONES} milestones")
        self.milestones[name] = time
        if self.on_milestone is not None:
            self.on_milestone(name, time)

    def _handle_result(self, fields: Fields) -> None:
        number = fields.number(Tag.ID)
        if not 0 < number <= self._last_call:
            raise WireError(f"the guest answered call {number}, which was never made")
        future = self._calls.pop(number, None)
        if future is None or future.done():
            return  # Its caller did not wait so long.
        if fields.has(Tag.ERRNO):
            future.set_exception(refusal(fields))
        else:
            future.set_result(fields)

    def _handle_ask(self, fields: Fields) -> None:
        number = fields.number(Tag.ID)
        now = asyncio.get_running_loop().time()
        earned = (now - self._ask_time) * ASK_RATE
        self._ask_allowance = min(ASK_BURST, self._ask_allowance + earned) - 1
        self._ask_time = now
        if number in self._asks or len(self._asks) >= MAX_ASKS or self._ask_allowance < 0:
            raise WireError("the guest asks too many questions")
        verb = printable(fields.first(Tag.NAME), 64)
        args = [printable(arg, 1024) for arg in fields.all(Tag.ARG)[:16]]
        task = asyncio.get_running_loop().create_task(self._answer(number, verb, args))
        self._asks[number] = task
        task.add_done_callback(lambda done: self._asked(number, done))

    def _asked(self, number: int, task: asyncio.Task[None]) -> None:
        if self._asks.get(number) is task:
            del self._asks[number]

    async def _answer(self, number: int, verb: str, args: list[str]) -> None:
        text, code = b"bugbox: nobody is there to answer\n", 75
        try:
            if self.on_ask is not None:
                async with asyncio.timeout(ASK_SECONDS):
                    text, code = await self.on_ask(verb, args)
        except TimeoutError:
            text, code = b"bugbox: the answer took too long\n", 75
        except Exception as error:
            log.warning("a question from inside (%s) could not be answered: %s", verb, error)
            text, code = f"bugbox: {error}\n".encode(), 70
        text = text[:MAX_ANSWER]
        for start in range(0, len(text), MAX_DATA):
            await self._writing()
            part: Pairs = [(Tag.ID, number), (Tag.DATA, text[start : start + MAX_DATA])]
            self._send(Frame(Type.ANSWER, 0, 0, pack_fields(part)))
        last: Pairs = [(Tag.ID, number), (Tag.CODE, code)]
        self._send(Frame(Type.ANSWER, 1, 0, pack_fields(last)))

    # Is it still there?

    async def _keep_watch(self) -> None:
        """Ask a guest that owes us something and is silent for a sign of life.

        A virtio-serial port does not tell us when the lifeline was killed.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.quiet)
            owing = bool(self._channels or self._calls) and self.hello is not None
            since = self._heard
            if self.paused or not owing or loop.time() - since < self.quiet:
                continue
            with contextlib.suppress(GuestError):
                await self.call("ping", timeout=self.patience)
            if self._heard == since and self.hello is not None and not self.paused:
                self.lose(MachineLost("the lifeline gives no sign of life"))


def _packed(fields: Pairs) -> bytes:
    try:
        return pack_fields(fields)
    except ValueError as error:
        raise UserError(f"the guest cannot be asked that: {error}") from None
