# SPDX-License-Identifier: Apache-2.0
"""The guest is hostile: rules it breaks, floods, silence. Nothing crashes, hangs or grows."""

import asyncio
import gc
import logging
import random
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from bugbox.errors import GuestError, MachineLost
from bugbox.machine.lifeline import connection as connection_module
from bugbox.machine.lifeline import shell as shell_module
from bugbox.machine.lifeline.connection import Connection
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.lifeline.wire import (
    MAGIC,
    Decoder,
    Frame,
    Tag,
    Type,
    encode,
    pack_fields,
    pack_window,
)

pytestmark = pytest.mark.anyio

Fields = Iterable[tuple[Tag, bytes | str | int]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def frame(kind: int, channel: int = 0, payload: bytes | Fields = b"", flags: int = 0) -> bytes:
    raw = payload if isinstance(payload, bytes) else pack_fields(payload)
    return encode(Frame(kind, flags, channel, raw))


HELLO = frame(
    Type.HELLO,
    payload=[(Tag.VERSION, 1), (Tag.BOOT_ID, "b"), (Tag.STARTED, "boot"), (Tag.TIME, 1)],
)
OPENED = frame(Type.OPENED, 1, [(Tag.PID, 7)])
EXIT = frame(Type.EXIT, 1, [(Tag.CODE, 0)])


def data(size: int, *, stream: int = 1, channel: int = 1) -> bytes:
    return frame(Type.DATA, channel, b"d" * size, stream)


class Rogue:
    """The guest's end of one connection, which says what a test tells it to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(strict=False)
        self.decoder.hunt()
        self.frames: list[Frame] = []

    async def next(self, kind: Type) -> Frame:
        """Wait for a frame of this type."""
        while True:
            while self.frames:
                found = self.frames.pop(0)
                if found.type == kind:
                    return found
            raw = await self.reader.read(65536)
            if not raw:
                raise EOFError
            self.frames = self.decoder.feed(raw)

    def say(self, *raw: bytes) -> None:
        self.writer.write(b"".join(raw))

    async def greet(self, *after: bytes) -> None:
        self.say(encode(await self.next(Type.SYNC)), HELLO, *after)


Script = Callable[[Rogue], Awaitable[None]]


@asynccontextmanager
async def rogue(path: Path, script: Script) -> AsyncIterator[Connection]:
    """Connect to a guest that follows `script` and then says no more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(Rogue(reader, writer))
            while await reader.read(65536):
                pass
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, str(path))
    connection = await Connection.connect(path)
    try:
        yield connection
    finally:
        await connection.aclose()
        server.close()
        await asyncio.sleep(0.01)


BROKEN = {
    "rubbish": b"\xff" * 100,
    "a giant length": struct.pack("<BBHII", 6, 1, MAGIC, 1, 2**32 - 1) + bytes(4),
    "a length one too long": struct.pack("<BBHII", 6, 1, MAGIC, 1, 65537) + bytes(4),
    "a wrong checksum": data(3)[:-1] + b"x",
    "an unknown type": frame(200),
    "an unknown type on a channel": frame(200, 1),
    "a channel never opened": data(3, channel=99),
    "an exit of a channel never opened": frame(Type.EXIT, 2, [(Tag.CODE, 0)]),
    "a frame that only a host sends": frame(Type.OPEN, 1, [(Tag.KIND, "exec")]),
    "an answer": frame(Type.ANSWER, 0, [(Tag.ID, 1)]),
    "opened twice": OPENED,
    "data on stream 0": data(3, stream=0),
    "data on stream 9": data(3, stream=9),
    "empty data": data(0),
    "a data frame too long": data(16385),
    "more data than credit": data(16384) * 4 + data(1),
    "data after its end": frame(Type.EOF, 1, b"", 1) + data(1),
    "an end twice": frame(Type.EOF, 1, b"", 1) * 2,
    "an end of stream 0": frame(Type.EOF, 1, b"", 0),
    "an end with a payload": frame(Type.EOF, 1, b"x", 1),
    "a frame after the exit": EXIT + data(1),
    "an exit without a status": frame(Type.EXIT, 1),
    "a status too large": frame(Type.EXIT, 1, [(Tag.CODE, 256)]),
    "a negative status": frame(Type.EXIT, 1, [(Tag.CODE, -1)]),
    "a signal too large": frame(Type.EXIT, 1, [(Tag.SIGNO, 2**40)]),
    "a number of 3 bytes": frame(Type.EXIT, 1, [(Tag.CODE, b"123")]),
    "half a field": frame(Type.EXIT, 1, b"\x14\x08"),
    "a field beyond the payload": frame(Type.EXIT, 1, b"\x14\xff\xff\xff\xff1234"),
    "too many fields": frame(Type.EXIT, 1, [(Tag.ARG, b"")] * 2000),
    "a window of 3 bytes": frame(Type.WINDOW, 1, b"123"),
    "a window too wide": frame(Type.WINDOW, 1, pack_window(2**32 - 1)),
    "a window nobody needs": frame(Type.WINDOW, 1, pack_window(1)),
    "a second sync": encode(Frame(Type.SYNC, 0, 0, b"bugbox lifeline1" + bytes(16))),
    "a failure of everything": frame(Type.FAILED, 0, [(Tag.STEP, "s"), (Tag.MESSAGE, "m")]),
    "an answer to no call": frame(Type.RESULT, 0, [(Tag.ID, 5)]),
    "an answer without a number": frame(Type.RESULT),
    "a milestone without a time": frame(Type.MILESTONE, 0, [(Tag.NAME, "x")]),
    "a milestone in the past": frame(Type.MILESTONE, 0, [(Tag.NAME, "x"), (Tag.TIME, -1)]),
    "too many milestones": b"".join(
        frame(Type.MILESTONE, 0, [(Tag.NAME, str(n)), (Tag.TIME, n)]) for n in range(40)
    ),
    "five questions at once": b"".join(
        frame(Type.ASK, 0, [(Tag.ID, n), (Tag.NAME, "check")]) for n in range(5)
    ),
    "a question twice": frame(Type.ASK, 0, [(Tag.ID, 1), (Tag.NAME, "check")]) * 2,
    "a question without a verb": frame(Type.ASK, 0, [(Tag.ID, 1)]),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_rule_ends_the_connection_and_tells_everybody(
    name: str, tmp_path: Path
) -> None:
    async def script(guest: Rogue) -> None:
        await guest.greet()
        await guest.next(Type.OPEN)
        guest.say(OPENED)
        await guest.next(Type.CALL)
        guest.say(BROKEN[name])

    async def slow(verb: str, args: list[str]) -> tuple[bytes, int]:
        await asyncio.sleep(100)
        return b"", 0

    async with asyncio.timeout(10), rogue(tmp_path / "s", script) as connection:
        lost: list[GuestError] = []
        connection.on_lost, connection.on_ask = lost.append, slow
        await connection.synchronize(5)
        channel = await connection.open("exec", [])
        with pytest.raises(GuestError) as caught:
            await connection.call("ping")
        assert caught.value.kind in ("GuestError", "MachineLost")
        assert len(lost) == 1
        with pytest.raises(GuestError):
            # What came before the broken rule may still be had; then the error.
            while await channel.receive() is not None:
                pass
            raise GuestError("ended before")
        with pytest.raises(GuestError):
            await connection.open("exec", [])
        with pytest.raises(GuestError):
            await connection.synchronize(1)


STARTS = {
    "another version": frame(Type.HELLO, 0, [(Tag.VERSION, 2)]),
    "an empty hello": frame(Type.HELLO),
    "a milestone first": frame(Type.MILESTONE, 0, [(Tag.NAME, "x"), (Tag.TIME, 1)]),
    "a channel first": OPENED,
}


@pytest.mark.parametrize("name", STARTS)
async def test_a_wrong_start_is_an_error(name: str, tmp_path: Path) -> None:
    async def script(guest: Rogue) -> None:
        guest.say(encode(await guest.next(Type.SYNC)), STARTS[name])

    async with asyncio.timeout(10), rogue(tmp_path / "s", script) as connection:
        with pytest.raises(GuestError):
            await connection.synchronize(5)
        assert not connection.synchronized


async def test_a_guest_that_never_answers_or_talks_rubbish_for_ever(tmp_path: Path) -> None:
    async def silent(guest: Rogue) -> None:
        await guest.next(Type.SYNC)

    async def babble(guest: Rogue) -> None:
        while True:
            guest.say(random.randbytes(65536))
            await guest.writer.drain()

    for number, script in enumerate((silent, babble)):
        async with rogue(tmp_path / f"s{number}", script) as connection:
            begun = time.monotonic()
            with pytest.raises(MachineLost, match=r"within 0\.5 s"):
                await connection.synchronize(0.5)
            assert time.monotonic() - begun < 30


async def test_the_start_is_said_again_to_a_guest_that_missed_it(tmp_path: Path) -> None:
    async def script(guest: Rogue) -> None:
        await guest.next(Type.SYNC)
        await guest.greet()

    async with rogue(tmp_path / "s", script) as connection:
        assert (await connection.synchronize(10)).boot_id == "b"


async def test_the_start_is_said_once_to_a_guest_that_does_not_listen_yet(tmp_path: Path) -> None:
    """A machine that still boots must not find a heap of them."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    connection = await Connection.connect(tmp_path / "s")
    peer, _ = listener.accept()
    with pytest.raises(MachineLost):
        await connection.synchronize(2.5)
    await connection.aclose()
    with peer, listener:
        raw = b""
        while part := peer.recv(1 << 20):
            raw += part
    assert len(raw) == 65536 + 16 + 48


async def test_a_get_without_a_limit_is_not_endless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_module, "_GROWTH", 200_000)

    async def script(guest: Rogue) -> None:
        await guest.greet()
        channel = (await guest.next(Type.OPEN)).channel
        guest.say(frame(Type.OPENED, channel, [(Tag.SIZE, 10)]))
        while True:
            guest.say(data(16384, channel=channel))
            await guest.next(Type.WINDOW)

    async with asyncio.timeout(20), rogue(tmp_path / "s", script) as connection:
        await connection.aclose()
        lifeline = Lifeline(tmp_path / "s")
        await lifeline.connect(5)
        received = 0
        with pytest.raises(GuestError, match="larger than"):
            async for part in lifeline.get_stream("/x"):
                received += len(part)
        assert received < 300_000
        await lifeline.aclose()


async def test_open_and_call_end_in_time(tmp_path: Path) -> None:
    async with rogue(tmp_path / "s", Rogue.greet) as connection:
        await connection.synchronize(5)
        with pytest.raises(GuestError, match=r"opening exec took longer than 0\.1 s"):
            await connection.open("exec", [], timeout=0.1)
        with pytest.raises(GuestError, match=r"answer to ping took longer than 0\.1 s"):
            await connection.call("ping", timeout=0.1)
        assert connection.synchronized


async def test_at_most_64_channels(tmp_path: Path) -> None:
    async def script(guest: Rogue) -> None:
        await guest.greet()
        while True:
            guest.say(frame(Type.OPENED, (await guest.next(Type.OPEN)).channel))

    async with rogue(tmp_path / "s", script) as connection:
        await connection.synchronize(5)
        for _ in range(64):
            await connection.open("exec", [])
        with pytest.raises(GuestError, match="opening exec took longer"):
            await connection.open("exec", [], timeout=0.1)


async def test_a_close_that_is_not_agreed_to_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "patience", 0.2)

    async def script(guest: Rogue) -> None:
        await guest.greet()
        await guest.next(Type.OPEN)
        guest.say(OPENED)

    async with rogue(tmp_path / "s", script) as connection:
        await connection.synchronize(5)
        (await connection.open("exec", [])).close()
        await asyncio.sleep(0.5)
        assert connection.lost is not None
        assert "close a channel" in str(connection.lost)


async def test_a_failure_names_its_step_and_is_safe_to_print(tmp_path: Path) -> None:
    async def script(guest: Rogue) -> None:
        await guest.greet()
        await guest.next(Type.OPEN)
        why: Fields = [(Tag.ERRNO, 2), (Tag.STEP, "run /bin/login"), (Tag.MESSAGE, "\x1b[2Jno\n")]
        guest.say(frame(Type.FAILED, 1, why))

    async with rogue(tmp_path / "s", script) as connection:
        await connection.synchronize(5)
        with pytest.raises(GuestError, match=r"run /bin/login: \\x1b\[2Jno\\n"):
            await connection.open("terminal", [])
        assert connection.synchronized


async def test_a_guest_that_does_not_read_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_TOO_FULL", 100_000)

    async def script(guest: Rogue) -> None:
        await guest.greet()
        await asyncio.sleep(100)

    async with asyncio.timeout(30), rogue(tmp_path / "s", script) as connection:
        await connection.synchronize(5)

        async def call() -> None:
            await connection.call("ping", [(Tag.DATA, bytes(60000))], timeout=20)

        calls = [asyncio.ensure_future(call()) for _ in range(20)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, MachineLost)


async def test_tiny_frames_are_not_many_objects(tmp_path: Path) -> None:
    """65536 frames of a byte, two streams in turn, with nobody receiving."""

    async def script(guest: Rogue) -> None:
        await guest.greet()
        await guest.next(Type.OPEN)
        guest.say(OPENED, (data(1) + data(1, stream=2)) * 32768)
        guest.say(frame(Type.RESULT, 0, [(Tag.ID, 1)]))

    async with rogue(tmp_path / "s", script) as connection:
        await connection.synchronize(5)
        channel = await connection.open("exec", [])
        await connection.call("ping", timeout=20)
        assert len(channel._queue) <= 4
        streams = {1: 0, 2: 0}
        for _ in range(len(channel._queue)):
            item = await channel.receive()
            assert item is not None
            streams[item[0]] += len(item[1])
        assert streams == {1: 32768, 2: 32768}


async def test_a_get_that_never_ends_or_lies_about_its_size(tmp_path: Path) -> None:
    async def script(guest: Rogue) -> None:
        await guest.greet()
        channel = (await guest.next(Type.OPEN)).channel
        guest.say(frame(Type.OPENED, channel, [(Tag.SIZE, 10)]))
        while True:
            guest.say(data(16384, channel=channel) * 4)
            for _ in range(4):
                await guest.next(Type.WINDOW)

    path = tmp_path / "s"
    async with asyncio.timeout(20), rogue(path, script) as connection:
        await connection.aclose()
        lifeline = Lifeline(path)
        await lifeline.connect(5)
        with pytest.raises(GuestError, match="larger than 1000000"):
            await lifeline.get("/x", limit=1_000_000)
        await lifeline.aclose()


# The fuzzer: a guest in a thread of its own, on a real socket.


class Fuzzer:
    """Greets, opens what is asked for, and then sends frames, most of them nearly right."""

    def __init__(self, path: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.sent = 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(5)
                with suppress(OSError):
                    self.serve(peer)

    def serve(self, peer: socket.socket) -> None:
        decoder = Decoder(strict=False)
        decoder.hunt()
        opened = 0
        while opened < 4:
            raw = peer.recv(1 << 18)
            if not raw:
                return
            for got in decoder.feed(raw):
                if got.type == Type.SYNC:
                    peer.sendall(encode(got) + HELLO)
                elif got.type in (Type.OPEN, Type.CALL):
                    opened += 1
                    if got.channel:
                        peer.sendall(frame(Type.OPENED, got.channel, [(Tag.PID, 1)]))
        for _ in range(self.random.randrange(1, 6)):
            burst = [self.one() for _ in range(40)]
            peer.sendall(b"".join(burst))
            self.sent += len(burst)

    def one(self) -> bytes:
        chance = self.random.random()
        good = self.nearly_right()
        if chance < 0.97:
            return good
        if chance < 0.98:
            place = self.random.randrange(len(good))
            return good[:place] + self.random.randbytes(1) + good[place + 1 :]
        if chance < 0.985:
            return good[: self.random.randrange(len(good))]
        if chance < 0.99:
            length = self.random.choice((65537, 2**31, 2**32 - 1))
            return struct.pack("<BBHIII", self.random.randrange(20), 0, MAGIC, 1, length, 0)
        if chance < 0.995:
            return self.random.randbytes(self.random.randrange(200))
        payload = self.random.randbytes(self.random.randrange(100))
        channel = self.random.choice((0, 1, 2, 3, 99, 2**32 - 1))
        return frame(self.random.randrange(256), channel, payload, self.random.randrange(4))

    def nearly_right(self) -> bytes:
        pick = self.random.randrange(12)
        channel = self.random.randrange(1, 4)
        if pick < 4:
            name: Fields = [(Tag.NAME, str(self.random.randrange(20))), (Tag.TIME, 5)]
            return frame(Type.MILESTONE, 0, name)
        if pick < 9:
            return data(self.random.randrange(1, 40), stream=1 + pick % 2, channel=channel)
        if pick < 11:
            return frame(Type.WINDOW, channel, pack_window(0)) + bytes(self.random.randrange(9))
        if self.random.random() < 0.9:
            return bytes(20) + frame(Type.MILESTONE, 0, [(Tag.NAME, "1"), (Tag.TIME, 2**62)])
        return self.random.choice(
            (
                frame(Type.EXIT, channel, [(Tag.CODE, 1)]),
                frame(Type.EOF, channel, b"", 1),
                frame(Type.RESULT, 0, [(Tag.ID, 1)]),
                frame(Type.ASK, 0, [(Tag.ID, self.random.randrange(9)), (Tag.NAME, "check")]),
                frame(Type.FAILED, channel, [(Tag.STEP, b"\xff\x1b"), (Tag.MESSAGE, b"\0")]),
                data(16384, channel=channel) * 5,
                HELLO,
            )
        )


def resident() -> int:
    """Resident memory in KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


async def test_a_hundred_thousand_frames_of_a_fuzzing_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    handled = broken = 0
    original = Connection._handle
    # pytest keeps each line that is logged, ten thousand of them here where a test before has
    # turned the logger up.
    logging.disable(logging.CRITICAL)
    request.addfinalizer(lambda: logging.disable(logging.NOTSET))

    def counting(self: Connection, got: Frame) -> None:
        nonlocal handled
        handled += 1
        original(self, got)

    monkeypatch.setattr(Connection, "_handle", counting)
    seed = int(time.time())
    fuzzer = Fuzzer(tmp_path / "s", seed)
    fuzzer.thread.start()

    async def session() -> None:
        nonlocal broken
        connection = await Connection.connect(tmp_path / "s")
        try:
            await connection.synchronize(5)

            async def use(kind: str) -> None:
                channel = await connection.open(kind, [], timeout=5)
                while await channel.receive(stall=5) is not None:
                    pass

            work = [use("exec"), use("get"), use("terminal"), connection.call("ping", timeout=5)]
            results = await asyncio.gather(*work, return_exceptions=True)
            for result in results:
                assert result is None or isinstance(result, GuestError) or hasattr(result, "all")
        finally:
            broken += connection.lost is not None and not isinstance(connection.lost, MachineLost)
            await connection.aclose()

    begun, connections, before, blocks = time.monotonic(), 0, 0, 0
    async with asyncio.timeout(240):
        while handled < 100_000:
            await session()
            connections += 1
            if connections == 300:
                gc.collect()
                before, blocks = resident(), sys.getallocatedblocks()
    gc.collect()
    grown, kept = resident() - before, sys.getallocatedblocks() - blocks
    seconds = time.monotonic() - begun
    fuzzer.listener.close()
    print(
        f"seed {seed}: {handled} frames handled ({fuzzer.sent} sent) on {connections} "
        f"connections, {broken} ended for a broken rule, in {seconds:.1f} s; "
        f"resident memory grew by {grown} KiB, Python keeps {kept} blocks more"
    )
    assert broken > 100
    # The heap of a process that ran three thousand tests before grows by fragments too: what
    # Python still holds is exact, and the kernel's figure bounds what it cannot see.
    assert kept < 20_000
    assert grown < 64 * 1024
    assert len(asyncio.all_tasks()) < 10
