# SPDX-License-Identifier: Apache-2.0
"""Copy between a client's stream and something in a guest until either is over."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import anyio

from bugbox.errors import MachineLost
from bugbox.keeper import protocol
from bugbox.keeper.protocol import ProtocolError
from bugbox.keeper.wire import Client, HungUp
from bugbox.machine.lifeline.command import Command
from bugbox.session.terminal import Ended, Note, Output, Seat

__all__ = ["Input", "command", "file_in", "file_out", "follow", "terminal"]

#: Input that waits for a guest that does not read it; a client keeps to protocol.WINDOW.
_INPUT_LIMIT = 1 << 20


class Input:
    """What the client typed or piped, apart from its signals, which must not wait behind it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False
        self._changed = anyio.Event()

    async def put(self, data: bytes) -> None:
        """Take more; wait when there is far too much already."""
        while self._size > _INPUT_LIMIT:
            await self._changed.wait()
        self._parts.append(data)
        self._size += len(data)
        self._wake()

    def end(self) -> None:
        """No more follows."""
        self._ended = True
        self._wake()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while not self._parts:
                if self._ended:
                    return
                await self._changed.wait()
            part = self._parts.pop(0)
            yield part
            self._size -= len(part)
            self._wake()
            await self._client.send_frame(protocol.TAKEN, {"bytes": len(part)})

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def command(client: Client, running: Command, info: Mapping[str, Any]) -> None:
    """Serve the verbs `exec` and `dial`. The command is killed when the client hangs up."""
    typed = Input(client)

    async def feed() -> None:
        async for part in typed:
            await running.send(part)
        await running.send_eof()

    async def control(kind: int, payload: bytes) -> None:
        if kind == protocol.SIGNAL:
            await running.signal(_number(payload, "signo", 1, 64))

    async def show() -> None:
        while (item := await running.receive()) is not None:
            kind = protocol.STDOUT if item[0] == 1 else protocol.STDERR
            await client.send_frame(kind, item[1])
        ended = await running.status()
        await client.send_frame(protocol.EXIT, _exit(ended.status, ended.signal))

    try:
        await client.begin_stream(info)
        await _both_ways(client, typed, feed, control, show)
    finally:
        with anyio.CancelScope(shield=True):
            await running.close()


async def terminal(client: Client, seat: Seat, info: Mapping[str, Any]) -> None:
    """Serve `terminal` and `attach`. The shell lives on when the client hangs up."""
    typed = Input(client)

    async def feed() -> None:
        async for part in typed:
            await seat.send(part)

    async def control(kind: int, payload: bytes) -> None:
        if kind == protocol.RESIZE:
            rows = _number(payload, "rows", 1, 10_000)
            await seat.resize(rows, _number(payload, "cols", 1, 10_000))
        elif kind == protocol.SIGNAL:
            await seat.signal(_number(payload, "signo", 1, 64))

    async def tell(note: Note) -> None:
        told = {"text": note.text, "state": note.state}
        if note.terminal:
            told["terminal"] = note.terminal
        await client.send_frame(protocol.NOTICE, told)

    async def notes() -> None:
        async with contextlib.aclosing(seat.stands_still()) as found:
            async for note in found:
                await tell(note)

    async def show() -> None:
        while True:
            item = await seat.receive()
            if isinstance(item, Output):
                await client.send_frame(protocol.STDOUT, item.data)
            elif isinstance(item, Note):
                await tell(item)
            elif isinstance(item, Ended):
                await client.send_frame(protocol.EXIT, _exit(item.code, item.signal))
                return

    try:
        await client.begin_stream(info)
        await _both_ways(client, typed, feed, control, show, notes)
    finally:
        with anyio.CancelScope(shield=True):
            await seat.leave()


async def follow(
    client: Client, parts: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]
) -> None:
    """Serve `console`: bytes as they come, until the client has enough or the machine is gone."""
    typed = Input(client)

    async def feed() -> None:
        async for part in typed:
            await write(part)

    async def show() -> None:
        async for part in parts:
            await client.send_frame(protocol.STDOUT, part)
        raise MachineLost("the machine is gone")

    await _both_ways(client, typed, feed, _ignore, show)


async def file_in(client: Client, put: Callable[[AsyncIterator[bytes]], Awaitable[None]]) -> None:
    """Serve `put`: the client's input is the file."""
    typed = Input(client)

    async def show() -> None:
        await put(aiter(typed))
        await client.send_frame(protocol.EXIT, {"code": 0})

    await _both_ways(client, typed, _nothing, _ignore, show)


async def file_out(client: Client, parts: AsyncIterator[bytes]) -> None:
    """Serve `get`: the file is the output."""

    async def show() -> None:
        async for part in parts:
            await client.send_frame(protocol.STDOUT, part)
        await client.send_frame(protocol.EXIT, {"code": 0})

    await _both_ways(client, Input(client), _nothing, _ignore, show)


async def _both_ways(
    client: Client,
    typed: Input,
    feed: Callable[[], Awaitable[None]],
    control: Callable[[int, bytes], Awaitable[None]],
    show: Callable[[], Awaitable[None]],
    *others: Callable[[], Awaitable[None]],
) -> None:
    """Run both directions until `show` ends, or the client detaches or hangs up."""
    failure: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def read() -> None:
            try:
                while (frame := await client.next_frame())[0] != protocol.DETACH:
                    if frame[0] == protocol.STDIN:
                        await typed.put(frame[1])
                    elif frame[0] == protocol.STDIN_EOF:
                        typed.end()
                    else:
                        await control(*frame)
                await client.send_frame(protocol.EXIT, {"code": 0})
            except HungUp:
                pass
            except Exception as error:
                failure.append(error)
            group.cancel_scope.cancel()

        async def write(work: Callable[[], Awaitable[None]], last: bool) -> None:
            try:
                await work()
            except HungUp:
                last = True
            except Exception as error:
                failure.append(error)
                last = True
            if last:
                group.cancel_scope.cancel()

        group.start_soon(read)
        for work in (feed, *others):
            group.start_soon(write, work, False)
        group.start_soon(write, show, True)
    if failure:
        raise failure[0]


async def _nothing() -> None:
    return


async def _ignore(kind: int, payload: bytes) -> None:
    return


def _number(payload: bytes, name: str, least: int, most: int) -> int:
    try:
        value = int(json.loads(payload)[name])
    except (ValueError, TypeError, KeyError):
        raise ProtocolError(f"a frame without {name}") from None
    return min(max(value, least), most)


def _exit(code: int | None, signal: int | None) -> dict[str, Any]:
    return {"signal": signal} if signal is not None else {"code": code or 0}
