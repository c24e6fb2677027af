# SPDX-License-Identifier: Apache-2.0
"""What runs in a guest, seen from the host: a command's result, a running command, a terminal."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from bugbox.errors import UserError
from bugbox.machine.lifeline.channel import Channel, Exit

__all__ = ["Command", "Exit", "Result", "Terminal", "finish", "send_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A command that ended, or was ended by its time limit, and what it printed."""

    #: Exit status; None when a signal or the time limit ended it.
    status: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    #: More than the limit was printed on a stream; the rest is gone.
    truncated: bool = False
    timed_out: bool = False

    @property
    def code(self) -> int:
        """The status as a shell would say it: 128 + signal; 124 for the time limit."""
        if self.timed_out:
            return 124
        return Exit(status=self.status, signal=self.signal).code


class Command:
    """A command that runs; what it prints must be received, or it waits."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def pid(self) -> int | None:
        """Its process id in the guest, where there is one."""
        return self._channel.pid

    async def send(self, data: bytes) -> None:
        """Give it input. Waits while it does not read; what comes after its end is dropped."""
        await self._channel.send(data)

    async def send_eof(self) -> None:
        """Close its input."""
        self._channel.send_eof()

    async def receive(self) -> tuple[int, bytes] | None:
        """Return (stream, data), stream 1 or 2; None at the end."""
        return await self._channel.receive()

    async def signal(self, number: int) -> None:
        """Send a signal to its process group (a terminal: to the foreground group)."""
        self._channel.signal(number)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell a terminal its new size."""
        self._channel.resize(rows, cols)

    async def status(self) -> Exit:
        """Wait for its end. What was not received before is thrown away."""
        return await self._channel.wait()

    async def close(self) -> None:
        """Give it up: a command is killed, a terminal lives on. Safe to call twice."""
        self._channel.close()


class Terminal(Command):
    """A command on a terminal of its own, which outlives the connection."""

    def __init__(self, channel: Channel, id: str | None = None) -> None:
        super().__init__(channel)
        #: What `attach` and `hangup` take.
        self.id: str = channel.terminal if id is None else id


async def finish(channel: Channel, input: bytes, timeout: float, limit: int) -> Result:
    """Feed a command its input, keep the first `limit` bytes of each stream, wait for its end."""
    kept = {1: bytearray(), 2: bytearray()}
    cut = False
    ended: Exit | None = None
    feeding = asyncio.get_running_loop().create_task(_feed(channel, input))
    try:
        async with asyncio.timeout(timeout):
            while (item := await channel.receive()) is not None:
                stream, data = item
                room = limit - len(kept[stream])
                kept[stream] += data[:room]
                cut = cut or len(data) > room
            ended = await channel.wait()
    except TimeoutError:
        # Killed; a moment for the guest to say that it is really gone.
        channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                await channel.gone.wait()
    finally:
        # First of all, and without waiting: a cancelled anyio scope cancels each wait in here.
        channel.close()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    return Result(
        status=ended.status if ended else None,
        signal=ended.signal if ended else None,
        stdout=bytes(kept[1]),
        stderr=bytes(kept[2]),
        truncated=cut,
        timed_out=ended is None,
    )


async def _feed(channel: Channel, input: bytes) -> None:
    await channel.send(input)
    channel.send_eof()


async def send_all(
    channel: Channel, data: bytes | AsyncIterator[bytes], size: int, stall: float
) -> None:
    """Send exactly `size` bytes; UserError when the source has more or fewer."""
    if isinstance(data, bytes):
        data = _one(data)
    sent = 0
    async for part in data:
        sent += len(part)
        if sent > size:
            break
        await channel.send(part, stall)
    if sent != size:
        raise UserError(f"the source's size changed while it was sent: {size} bytes were promised")


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data
