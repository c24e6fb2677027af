# SPDX-License-Identifier: Apache-2.0
"""A machine's device state on its way out of one QEMU and into another.

Out: QEMU connects to a socket of ours. In: a pipe that QEMU inherits, filled beforehand. Both are
streams, so no version of QEMU finds a plain file where it wants none, and none opens a path.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bugbox.errors import GuestError, HostError

__all__ = ["IGNORE_SHARED", "STATE_LIMIT", "Receiver", "filled_pipe", "receiver"]

#: Memory in a file is not in the stream; QEMU tells how far it is.
IGNORE_SHARED = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
]
#: The state of the devices without the memory: some 70 KiB were seen.
STATE_LIMIT = 1 << 20


def filled_pipe(data: bytes) -> int:
    """Return the end of a pipe to read `data` from, then its end; the caller closes it."""
    if len(data) > STATE_LIMIT:
        raise HostError(f"a machine's state of {len(data)} bytes is not one of ours")
    source, sink = os.pipe()
    try:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, STATE_LIMIT)
        os.set_blocking(sink, False)
        if os.write(sink, data) != len(data):
            raise HostError("a machine's state does not fit into a pipe")
    except BaseException:
        os.close(source)
        raise
    finally:
        os.close(sink)
    return source


class Receiver:
    """Where one QEMU sends its state to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = asyncio.Event()

    async def whole(self, timeout: float) -> bytes:
        """Wait for the end of the state and return it."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            raise GuestError("QEMU did not send the machine's state in time") from None
        if not 0 < self._size <= STATE_LIMIT:
            raise GuestError(f"QEMU sent {self._size} bytes as the machine's state")
        return b"".join(self._parts)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what QEMU sends; too much of it is read and dropped."""
        while data := await reader.read(1 << 16):
            self._size += len(data)
            if self._size <= STATE_LIMIT:
                self._parts.append(data)
        writer.close()
        self._ended.set()


@asynccontextmanager
async def receiver(path: Path, uid: int | None) -> AsyncIterator[Receiver]:
    """Listen on `path`, where a QEMU that runs as `uid` may connect.

    Its folder is ours alone: while we listen, that QEMU may pass through it, and no more.
    """
    path.unlink(missing_ok=True)
    taken = Receiver()
    server = await asyncio.start_unix_server(taken.take, str(path))
    try:
        path.chmod(0o600)
        if uid is not None:
            os.chown(path, uid, uid)
            path.parent.chmod(0o711)
        yield taken
    finally:
        path.parent.chmod(0o700)
        server.close()
        path.unlink(missing_ok=True)
