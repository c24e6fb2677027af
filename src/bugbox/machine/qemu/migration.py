# SPDX-License-Identifier: Apache-2.0
"""A machine's state on its way out of one QEMU and into another.

Out: QEMU connects to a socket of ours. In: a pipe that QEMU inherits, filled beforehand with the
state of the devices alone, or fed with a whole machine while QEMU reads. All are streams, so no
version of QEMU finds a plain file where it wants none, and none opens a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from bugbox.descriptor import write_all
from bugbox.errors import GuestError, HostError
from bugbox.host.bridge import in_thread

__all__ = [
    "IGNORE_SHARED",
    "STATE_LIMIT",
    "WHOLE",
    "WHOLE_WITH_A_PAUSE",
    "FileReceiver",
    "Receiver",
    "feed",
    "filled_pipe",
    "receiver",
]

#: Memory in a file is not in the stream; QEMU tells how far it is.
IGNORE_SHARED = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},
    {"capability": "pause-before-switchover", "state": False},
]
_CHUNK = 1 << 20
#: All memory is in the stream, whatever an earlier one left out.
WHOLE = [
    {"capability": "x-ignore-shared", "state": False},
    {"capability": "events", "state": True},
    {"capability": "pause-before-switchover", "state": False},
]
#: And before the guest stops for the last of it, QEMU waits for us.
WHOLE_WITH_A_PAUSE = [*WHOLE[:-1], {"capability": "pause-before-switchover", "state": True}]
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


def feed(source: int, sink: int) -> None:
    """Write all of the file `source` into the pipe `sink` and close that.

    Returns early when nobody reads any more: why, those know who ended the reader.
    """
    try:
        with contextlib.suppress(BrokenPipeError):
            offset = 0
            while data := os.pread(source, _CHUNK, offset):
                offset += len(data)
                write_all(sink, data)
    finally:
        os.close(sink)


class Receiver:
    """Where one QEMU sends its state to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

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
        """Take what QEMU sends, and hang up when it is not wanted any more."""
        self._writer = writer
        try:
            while data := await reader.read(_CHUNK):
                await self._put(data)
        finally:
            writer.close()
            self._ended.set()

    async def gone(self) -> None:
        """Hang up, and wait until nothing more is taken."""
        if self._writer is not None:
            self._writer.transport.abort()
            await self._ended.wait()

    async def _put(self, data: bytes) -> None:
        """Keep it; too much of it is dropped."""
        self._size += len(data)
        if self._size <= STATE_LIMIT:
            self._parts.append(data)


class FileReceiver(Receiver):
    """Writes what one QEMU sends into a file."""

    def __init__(self, sink: int) -> None:
        super().__init__()
        self._sink = sink
        self._hasher = hashlib.sha256()
        #: Why the file does not take it.
        self.error: OSError | None = None

    async def written(self, timeout: float) -> tuple[int, str]:
        """Wait for the end; return how many bytes there are and their digest."""
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            raise GuestError("QEMU did not send the machine in time") from None
        if self.error is not None:
            raise self.error
        return self._size, self._hasher.hexdigest()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what QEMU sends; hang up when the file takes no more, and QEMU gives up."""
        try:
            await super().take(reader, writer)
        except OSError as error:
            self.error = error

    async def _put(self, data: bytes) -> None:
        await in_thread(self._write, data)
        self._size += len(data)

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        write_all(self._sink, data)


R = TypeVar("R", bound=Receiver)


@asynccontextmanager
async def receiver(path: Path, uid: int | None, taken: R) -> AsyncIterator[R]:
    """Listen on `path`, where a QEMU that runs as `uid` may connect, to be `taken` care of.

    Its folder is ours alone: while we listen, that QEMU may pass through it, and no more.
    """
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(taken.take, str(path), limit=_CHUNK)
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
        with anyio.CancelScope(shield=True):
            await taken.gone()
