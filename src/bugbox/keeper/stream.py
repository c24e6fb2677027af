# SPDX-License-Identifier: Apache-2.0
"""An open stream with the keeper: frames both ways, without ever waiting for the other end to read.

Standard library only, without asyncio: the thin clients use it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bugbox.descriptor import write_all
from bugbox.errors import BugboxError, MachineLost, by_kind
from bugbox.keeper import protocol
from bugbox.keeper.protocol import Frame, FrameDecoder

__all__ = ["KeeperGone", "Link", "Stream", "error_of", "exit_code", "relay"]

_CHUNK = 1 << 16


class KeeperGone(MachineLost):
    """The connection to the keeper broke before it had answered."""


class Link(Protocol):
    """What relay needs: a Stream, or a Terminal that reconnects."""

    @property
    def pending(self) -> int:
        """Bytes still to be sent."""

    @property
    def full(self) -> bool:
        """Whether no more input should be sent now."""

    @property
    def ready(self) -> bool:
        """Whether `receive` has frames without waiting for the socket."""

    def fileno(self) -> int:
        """The socket, for select."""

    def flush(self) -> None:
        """Send what the socket takes now."""

    def stdin(self, data: bytes) -> None:
        """Send input; empty data ends it."""

    def receive(self) -> list[Frame] | None:
        """Return the frames that have come; None at the end."""


class Stream:
    """Frames both ways. Sending never blocks: what does not fit is kept until `flush`.

    Wait with select for `fileno()` to be readable, and writable while `pending` is not 0.
    """

    def __init__(self, sock: socket.socket, info: dict[str, Any], rest: bytes = b"") -> None:
        self.info = info
        self._sock = sock
        self._sock.setblocking(False)
        self._decoder = FrameDecoder()
        self._out = bytearray()
        self._not_taken = 0
        self._early = self._without_taken(self._decoder.feed(rest))

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up: a command is killed, a terminal lives on."""
        self._sock.close()

    def fileno(self) -> int:
        """The socket, for select."""
        return self._sock.fileno()

    @property
    def pending(self) -> int:
        """Bytes still to be sent."""
        return len(self._out)

    @property
    def full(self) -> bool:
        """Whether the other end has enough input for now: read no more of it until this is False.

        Signals and sizes may be sent all the same.
        """
        return bool(self._out) or self._not_taken >= protocol.WINDOW

    @property
    def ready(self) -> bool:
        """Whether `receive` has frames without waiting for the socket."""
        return bool(self._early)

    def send(self, kind: int, payload: bytes | dict[str, Any] = b"") -> None:
        """Queue one frame and send what the socket takes now."""
        self._out += protocol.pack(kind, payload)
        self.flush()

    def stdin(self, data: bytes) -> None:
        """Send input; empty data ends it."""
        if not data:
            self.send(protocol.STDIN_EOF)
        for at in range(0, len(data), _CHUNK):
            self.send(protocol.STDIN, data[at : at + _CHUNK])
        self._not_taken += len(data)

    def resize(self, rows: int, cols: int) -> None:
        """Tell the terminal's new size."""
        self.send(protocol.RESIZE, {"rows": rows, "cols": cols})

    def signal(self, signo: int) -> None:
        """Send a signal to the command's process group."""
        self.send(protocol.SIGNAL, {"signo": signo})

    def detach(self) -> None:
        """Leave a terminal running and end the stream."""
        self.send(protocol.DETACH)

    def flush(self) -> None:
        """Send what the socket takes now."""
        with contextlib.suppress(BlockingIOError):
            while self._out:
                try:
                    sent = self._sock.send(self._out)
                except (BrokenPipeError, ConnectionResetError):
                    self._out.clear()  # the reading side will see the end and say so
                    return
                del self._out[:sent]

    def receive(self) -> list[Frame] | None:
        """Return the frames that have come, perhaps none; None when the keeper hung up."""
        if self._early:
            frames, self._early = self._early, []
            return frames
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        return self._without_taken(self._decoder.feed(data)) if data else None

    def _without_taken(self, frames: list[Frame]) -> list[Frame]:
        for kind, payload in frames:
            if kind == protocol.TAKEN:
                self._not_taken -= int(json.loads(payload)["bytes"])
        return [frame for frame in frames if frame[0] != protocol.TAKEN]


def relay(
    link: Link,
    *,
    stdin: int | None = 0,
    stdout: int = 1,
    stderr: int = 2,
    on_notice: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Copy between our descriptors and the stream until it ends; return the command's status.

    128+n for a signal. Raises what the keeper answered, and KeeperGone when it hung up.
    Input is read only when the last of it was sent, so neither side waits for the other.
    """
    while True:
        wanted: list[Any] = [link]
        if stdin is not None and not link.full:
            wanted.append(stdin)
        timeout = 0 if link.ready else None
        readable, writable, _ = select.select(wanted, [link] if link.pending else [], [], timeout)
        if writable:
            link.flush()
        if stdin is not None and stdin in readable:
            data = os.read(stdin, _CHUNK)
            link.stdin(data)
            stdin = stdin if data else None
        if link in readable or link.ready:
            status = _deliver(link.receive(), stdout, stderr, on_notice)
            if status is not None:
                return status


def _deliver(
    frames: list[Frame] | None,
    stdout: int,
    stderr: int,
    on_notice: Callable[[dict[str, Any]], None] | None,
) -> int | None:
    if frames is None:
        raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
    for kind, payload in frames:
        if kind in (protocol.STDOUT, protocol.STDERR):
            write_all(stdout if kind == protocol.STDOUT else stderr, payload)
        elif kind == protocol.EXIT:
            return exit_code(payload)
        elif kind == protocol.ERROR:
            raise error_of(json.loads(payload))
        elif kind == protocol.NOTICE and on_notice is not None:
            on_notice(json.loads(payload))
    return None


def exit_code(payload: bytes) -> int:
    """Turn an EXIT frame's payload into a shell's status: 128+n for a signal, 0 when detached."""
    told = json.loads(payload)
    signo = told.get("signal")
    return 128 + int(signo) if signo is not None else int(told.get("code") or 0)


def error_of(told: Mapping[str, Any]) -> BugboxError:
    """Make the exception that an error of the keeper's stands for."""
    error = by_kind(str(told.get("kind")))(
        str(told.get("message", "")), hint=told.get("hint"), detail=told.get("detail")
    )
    error.exit_status = int(told.get("exit", error.exit_status))
    return error
