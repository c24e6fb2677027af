# SPDX-License-Identifier: Apache-2.0
"""The serial console: read without end, kept in a capped log, shown to whoever asks.

The guest writes whatever it likes, for as long as it likes, so nothing here grows: the log is a
ring of two files, the tail is a number of lines of limited length, and a reader who is too slow
loses the oldest output, not the newest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["Console", "Follower", "RingFile"]

log = logging.getLogger(__name__)

_READ = 16384
_LINES, _LINE_BYTES = 500, 4096
#: Output kept for one slow reader.
_FOLLOWER_BYTES = 1 << 20


class RingFile:
    """A log that keeps its newest `cap` bytes at least, twice that at most: FILE and FILE.1."""

    def __init__(self, path: Path, cap: int = 256 * 1024) -> None:
        self.path = path
        self.older = path.with_name(f"{path.name}.1")
        self.cap = cap
        self._file: BinaryIO | None = None
        self._complained = False

    def write(self, data: bytes) -> None:
        """Append. A full disk loses the text, never the machine."""
        try:
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
            for start in range(0, len(data), self.cap):
                self._file.write(data[start : start + self.cap])
                if self._file.tell() >= self.cap:
                    self._file.close()
                    self._file = None
                    self.path.replace(self.older)
                    self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            if not self._complained:
                log.warning("%s: %s", self.path, error)
            self._complained = True

    def read(self) -> bytes:
        """Return all that is kept, the oldest first."""
        parts = []
        for path in (self.older, self.path):
            with contextlib.suppress(OSError):
                parts.append(path.read_bytes())
        return b"".join(parts)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Follower:
    """One reader of what the console says from now on."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._more = asyncio.Event()
        self._ended = False

    async def receive(self) -> bytes | None:
        """Return the next output; None when the console has ended."""
        while not self._chunks:
            if self._ended:
                return None
            self._more.clear()
            await self._more.wait()
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        return chunk

    def put(self, data: bytes) -> None:
        """Give it output. A serial port brings a byte at a time: small ones are joined."""
        if self._chunks and len(self._chunks[-1]) + len(data) <= _READ:
            before = self._chunks.pop()
            self._size -= len(before)
            data = before + data
        self._chunks.append(data)
        self._size += len(data)
        while self._size > _FOLLOWER_BYTES:
            self._size -= len(self._chunks.popleft())
        self._more.set()

    def end(self) -> None:
        """Say that there will be no more."""
        self._ended = True
        self._more.set()


class Console:
    """A machine's serial console over the UNIX socket of its port; makes no connection itself."""

    def __init__(self, socket: Path, log_file: Path) -> None:
        self.socket = socket
        self.ring = RingFile(log_file)
        #: Called with each whole line as it comes.
        self.on_line: Callable[[str], None] | None = None
        #: Bytes seen since `connect`: whether the guest says anything at all.
        self.heard = 0
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._partial = bytearray()
        self._followers: list[Follower] = []
        self._task: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Connect, and read until the VMM ends or `aclose`. OSError when nobody listens."""
        for line in self.ring.read()[-_LINES * 100 :].splitlines():
            self._lines.append(_text(line))
        reader, self._writer = await asyncio.open_unix_connection(str(self.socket))
        self._task = asyncio.get_running_loop().create_task(self._read(reader))

    def tail(self, lines: int = 30) -> list[str]:
        """Return the newest lines, a half one included. Control bytes are kept: escape them."""
        partial = [_text(self._partial)] if self._partial else []
        return [*self._lines, *partial][-lines:]

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Read along for the length of the block."""
        follower = Follower()
        if self._task is None or self._task.done():
            follower.end()
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    async def write(self, data: bytes) -> None:
        """Type on the console. A guest that does not read makes the writer wait."""
        if self._writer is None or self._writer.is_closing():
            raise ConnectionResetError("the console is closed")
        self._writer.write(data)
        await self._writer.drain()

    def mark(self, text: str) -> None:
        """Write a line of our own into the log, such as where a new boot begins."""
        self._take(f"\n[bugbox] {text}\n".encode())

    async def aclose(self) -> None:
        """Let go of the socket; what was read is kept."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None
        self.ring.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(_READ):
                self.heard += len(data)
                self._take(data)
        except OSError as error:
            log.debug("%s: %s", self.socket, error)
        finally:
            for follower in self._followers:
                follower.end()

    def _take(self, data: bytes) -> None:
        self.ring.write(data)
        for follower in self._followers:
            follower.put(data)
        self._partial += data
        if b"\n" not in data and len(self._partial) < _LINE_BYTES:
            return
        *whole, rest = bytes(self._partial).split(b"\n")
        if len(rest) >= _LINE_BYTES:
            whole.append(rest)
            rest = b""
        self._partial = bytearray(rest)
        for line in whole:
            text = _text(line[:_LINE_BYTES])
            self._lines.append(text)
            if self.on_line is not None:
                self.on_line(text)


def _text(line: bytes | bytearray) -> str:
    return line.decode(errors="replace").rstrip("\r\n")
