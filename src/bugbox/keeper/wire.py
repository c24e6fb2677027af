# SPDX-License-Identifier: Apache-2.0
"""The keeper's end of one connection: lines first, frames once it is a stream."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio
from anyio.abc import SocketAttribute, UNIXSocketStream

from bugbox.errors import BugboxError, of_the_host
from bugbox.events import Event, Progress
from bugbox.keeper import protocol
from bugbox.keeper.protocol import Frame, FrameDecoder, ProtocolError

__all__ = ["Client", "HungUp", "error_json"]

_CHUNK = 1 << 16
#: Events that wait for a client that does not read; older ones are dropped.
_EVENTS = 1000


class HungUp(Exception):
    """The client closed its side: it wants no answer any more."""


class Client:
    """One connection. `next_frame` by one task, `send_frame` by another."""

    #: Seconds that a client may take to say what it wants.
    patience = 60.0

    def __init__(self, sock: UNIXSocketStream) -> None:
        self._sock = sock
        self._held = b""
        self._decoder: FrameDecoder | None = None
        self._frames: deque[Frame] = deque()
        self._events: deque[Event] = deque(maxlen=_EVENTS)
        self._something = anyio.Event()
        self._sending = anyio.Lock()
        #: What is begun and not sent yet: a cancelled sender leaves the rest to the next one.
        self._unsent = bytearray()

    async def request(self) -> dict[str, Any]:
        """Read the line that says what is wanted. ProtocolError, HungUp: also of one too slow."""
        with anyio.move_on_after(self.patience) as limit:
            while b"\n" not in self._held:
                if len(self._held) > protocol.LINE_LIMIT:
                    raise ProtocolError("the request is too long")
                self._held += await self._receive()
        if limit.cancelled_caught:
            raise HungUp
        text, self._held = self._held.split(b"\n", 1)
        try:
            request = json.loads(text)
        except ValueError as error:
            raise ProtocolError(f"the request is no JSON: {error}") from error
        if not isinstance(request, dict) or not isinstance(request.get("args", {}), dict):
            raise ProtocolError("the request is no object")
        return request

    async def hung_up(self) -> None:
        """Return when the client has closed its side."""
        try:
            while True:
                await self._receive()
        except HungUp:
            return

    @property
    def streaming(self) -> bool:
        """Whether the connection speaks frames by now."""
        return self._decoder is not None

    # Lines.

    def on_event(self, event: Event) -> None:
        """Take an event; it is sent by `send_events`. A step's progress replaces its last one."""
        last = self._events[-1] if self._events else None
        if isinstance(event, Progress) and isinstance(last, Progress) and last.title == event.title:
            self._events.pop()
        self._events.append(event)
        self._something.set()

    async def send_events(self) -> None:
        """Send events as they come, until the client has hung up."""
        try:
            while True:
                await self._something.wait()
                self._something = anyio.Event()
                await self.flush_events()
        except HungUp:
            return

    async def flush_events(self) -> None:
        """Send the events that have come."""
        while self._events:
            event = self._events.popleft()
            told = {"type": type(event).__name__, **dataclasses.asdict(event)}
            await self.send_line({"event": told})

    async def send_line(self, message: Mapping[str, Any]) -> None:
        """Send one JSON line."""
        await self._send(protocol.line(dict(message)))

    # Frames.

    async def begin_stream(self, info: Mapping[str, Any]) -> None:
        """Say that frames follow."""
        await self.flush_events()
        await self.send_line({"stream": dict(info)})
        self._decoder = FrameDecoder()
        self._frames.extend(self._decoder.feed(self._held))
        self._held = b""

    async def next_frame(self) -> Frame:
        """Return the client's next frame. ProtocolError, HungUp."""
        assert self._decoder is not None
        while not self._frames:
            self._frames.extend(self._decoder.feed(await self._receive()))
        return self._frames.popleft()

    async def send_frame(self, kind: int, payload: bytes | dict[str, Any] = b"") -> None:
        """Send one frame; wait while the client does not read."""
        await self._send(protocol.pack(kind, payload))

    async def _receive(self) -> bytes:
        try:
            return await self._sock.receive(_CHUNK)
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise HungUp from None

    async def _send(self, data: bytes) -> None:
        """Send it behind all that was begun. Cancelled half-way, none is torn, none is lost."""
        raw = self._sock.extra(SocketAttribute.raw_socket)
        self._unsent += data
        try:
            async with self._sending:
                while self._unsent:
                    try:
                        del self._unsent[: raw.send(self._unsent)]
                    except BlockingIOError:
                        await anyio.wait_writable(raw)
        except (OSError, anyio.ClosedResourceError):
            raise HungUp from None


def error_json(error: BaseException) -> dict[str, Any]:
    """Write an error for the wire; what is neither ours nor the host's is a bug of ours."""
    if isinstance(error, OSError):
        error = of_the_host(error) or error
    if isinstance(error, BugboxError):
        return {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "detail": error.detail,
            "exit": error.exit_status,
        }
    return {
        "kind": "Bug",
        "message": f"{type(error).__name__}: {error}",
        "hint": "this is a bug of bugbox; bugbox logs --keeper has the details",
        "detail": None,
        "exit": 70,
    }
