# SPDX-License-Identifier: Apache-2.0
"""The serial console: bounded whatever the guest writes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bugbox.machine.console import Console, Follower, RingFile


@asynccontextmanager
async def port(path: Path) -> AsyncIterator[asyncio.Queue[asyncio.StreamWriter]]:
    """A machine's port: who connects is put into the queue."""
    clients: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await clients.put(writer)
        while data := await reader.read(100):
            writer.write(b"echo " + data)

    server = await asyncio.start_unix_server(accepted, str(path))
    try:
        yield clients
    finally:
        server.close()
        while not clients.empty():
            clients.get_nowait().close()


def with_console(
    tmp_path: Path, test: Callable[[Console, asyncio.StreamWriter], Awaitable[None]]
) -> None:
    async def main() -> None:
        async with port(tmp_path / "s") as clients:
            console = Console(tmp_path / "s", tmp_path / "console.log")
            await console.connect()
            guest = await clients.get()
            try:
                await asyncio.wait_for(test(console, guest), 20)
            finally:
                guest.close()
                await console.aclose()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def test_ring_keeps_the_newest_and_is_capped(tmp_path: Path) -> None:
    ring = RingFile(tmp_path / "log", cap=1000)
    for number in range(500):
        ring.write(b"%09d\n" % number)
    kept = ring.read().split()
    assert kept[-1] == b"000000499"
    assert 100 <= len(kept) <= 200, "one part at least, two at most"
    assert kept == [b"%09d" % n for n in range(500 - len(kept), 500)], "in order, no gap"
    ring.write(b"x" * 100_000)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 2000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1"]
    ring.close()


def test_ring_without_a_place_to_write_is_no_error(tmp_path: Path) -> None:
    ring = RingFile(tmp_path / "missing" / "log")
    ring.write(b"lost")
    assert ring.read() == b""


def test_lines_tail_and_log(tmp_path: Path) -> None:
    async def test(console: Console, guest: asyncio.StreamWriter) -> None:
        lines: list[str] = []
        console.on_line = lines.append
        guest.write(b"one\r\ntw")
        await until(lambda: console.heard == 7)
        guest.write(b"o\nhalf \xff")
        await until(lambda: console.heard == 15)
        assert lines == ["one", "two"]
        assert console.tail() == ["one", "two", "half \ufffd"]
        assert console.tail(1) == ["half \ufffd"]
        assert (tmp_path / "console.log").read_bytes() == b"one\r\ntwo\nhalf \xff"

    with_console(tmp_path, test)


def test_a_line_without_end_does_not_grow(tmp_path: Path) -> None:
    async def test(console: Console, guest: asyncio.StreamWriter) -> None:
        for _ in range(100):
            guest.write(b"x" * 10000)
            await guest.drain()
        await until(lambda: console.heard == 1_000_000)
        tail = console.tail(10_000)
        assert len(tail) <= 501 and max(map(len, tail)) <= 4096

    with_console(tmp_path, test)


def test_followers_read_along_and_end_with_the_console(tmp_path: Path) -> None:
    async def test(console: Console, guest: asyncio.StreamWriter) -> None:
        guest.write(b"before\n")
        await until(lambda: console.heard == 7)
        with console.follow() as one, console.follow() as two:
            guest.write(b"after")
            assert await one.receive() == b"after"
            assert await two.receive() == b"after"
            guest.close()
            assert await one.receive() is None
        with console.follow() as late:
            assert await late.receive() is None

    with_console(tmp_path, test)


def test_single_bytes_are_kept_together() -> None:
    """A guest that writes byte by byte must not cost a slow reader's keeper an object for each."""

    async def main() -> list[bytes]:
        follower = Follower()
        for number in range(1_500_000):
            follower.put(bytes([number % 256]))
        follower.end()
        parts = []
        while (chunk := await follower.receive()) is not None:
            parts.append(chunk)
        return parts

    parts = asyncio.run(main())
    text = b"".join(parts)
    assert (1 << 20) - 16384 <= len(text) <= 1 << 20
    assert len(parts) <= 65
    assert text.endswith(bytes([(1_500_000 - 1) % 256]))


def test_a_slow_follower_loses_the_oldest() -> None:
    async def main() -> None:
        follower = Follower()
        for number in range(300):
            follower.put(bytes([number % 256]) * 10_000)
        follower.end()
        got = []
        while (chunk := await follower.receive()) is not None:
            got.append(chunk)
        assert sum(map(len, got)) <= 1 << 20
        assert got[-1] == bytes([299 % 256]) * 10_000

    asyncio.run(main())


def test_typing(tmp_path: Path) -> None:
    async def test(console: Console, guest: asyncio.StreamWriter) -> None:
        await console.write(b"id\n")
        await until(lambda: console.tail() == ["echo id"])

    with_console(tmp_path, test)


def test_a_new_holder_knows_what_was_said_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with port(tmp_path / "s") as clients:
            first = Console(tmp_path / "s", tmp_path / "console.log")
            await first.connect()
            guest = await clients.get()
            guest.write(b"old\n")
            await until(lambda: first.heard == 4)
            await first.aclose()
            second = Console(tmp_path / "s", tmp_path / "console.log")
            await second.connect()
            assert second.tail() == ["old"]
            await second.aclose()
            guest.close()

    asyncio.run(main())
