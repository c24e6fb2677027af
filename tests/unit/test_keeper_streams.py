# SPDX-License-Identifier: Apache-2.0
"""What the keeper's streams make of a client's frames and paths."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import UNIXSocketStream

from bugbox.errors import GuestError
from bugbox.keeper import protocol, pump, streams
from bugbox.keeper.wire import Client
from bugbox.machine.lifeline.command import Result


def test_what_is_typed_reaches_the_console() -> None:
    async def main() -> bytes:
        typed, all_of = bytearray(), anyio.Event()
        ours, theirs = socket.socketpair()

        async def write(data: bytes) -> None:
            typed.extend(data)
            if len(typed) == 4:
                all_of.set()

        async def silence() -> AsyncIterator[bytes]:
            await anyio.sleep_forever()
            yield b""

        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                client = Client(stream)
                await client.begin_stream({})
                for part in (b"ls", b"\r\n"):
                    ours.send(protocol.pack(protocol.STDIN, part))
                async with anyio.create_task_group() as group:
                    group.start_soon(pump.follow, client, silence(), write)
                    with anyio.fail_after(30):
                        await all_of.wait()
                    group.cancel_scope.cancel()
        return bytes(typed)

    assert anyio.run(main) == b"ls\r\n"


class _Guest:
    def __init__(self, home: bytes, status: int = 0) -> None:
        self.result = Result(status=status, signal=None, stdout=home, stderr=b"", timed_out=False)

    async def script(self, *_: object, **__: object) -> Result:
        return self.result


@pytest.mark.parametrize(
    ("path", "home", "whole"),
    [
        ("/etc/motd", b"", "/etc/motd"),
        ("notes", b"/srv/ann", "/srv/ann/notes"),
        ("~/notes", b"/srv/ann/", "/srv/ann/notes"),
        ("", b"/srv/ann", "/srv/ann"),
        ("", b"/", "/"),
    ],
)
def test_a_home_is_what_the_guest_says(path: str, home: bytes, whole: str) -> None:
    guest: Any = _Guest(home)
    assert anyio.run(streams._path, {"path": path}, "ann", guest) == whole


@pytest.mark.parametrize(("home", "status"), [(b"", 0), (b"relative", 0), (b"/srv/ann", 1)])
def test_no_home_is_said(home: bytes, status: int) -> None:
    guest: Any = _Guest(home, status)
    with pytest.raises(GuestError, match="home is not known"):
        anyio.run(streams._path, {"path": "notes"}, "ann", guest)


def test_a_file_larger_than_the_guests_disk_is_not_taken() -> None:
    asked: list[int] = []

    class Lifeline(_Guest):
        async def get_stream(self, path: str, *, limit: int) -> AsyncIterator[bytes]:
            asked.append(limit)
            yield b"x"

    async def lifeline() -> Lifeline:
        return Lifeline(b"/")

    plan = SimpleNamespace(disk_bytes=2 << 30, user="ann")
    session = SimpleNamespace(id="one-3f9k", plan=plan, lifeline=lifeline)

    async def find(_: object) -> Any:
        return SimpleNamespace(session=session)

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                manager: Any = SimpleNamespace(find=find)
                await streams._get(manager, Client(stream), {"id": "one", "path": "/f"})

    anyio.run(main)
    assert asked == [(2 << 30) + (64 << 20)]
