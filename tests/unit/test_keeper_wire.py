# SPDX-License-Identifier: Apache-2.0
"""The keeper's end of a connection."""

from __future__ import annotations

import errno
import json
import socket

import anyio
import pytest
from anyio.abc import UNIXSocketStream

from bugbox.events import Notice
from bugbox.keeper import protocol
from bugbox.keeper.protocol import FrameDecoder
from bugbox.keeper.wire import Client, HungUp, error_json

#: More than a socket's buffers hold, so that the sender has to wait for the reader.
_LARGE = 900_000


async def _all_of(sock: socket.socket) -> bytes:
    sock.setblocking(True)
    parts = []
    while part := await anyio.to_thread.run_sync(sock.recv, 1 << 16):
        parts.append(part)
    return b"".join(parts)


async def _sent_half(client: Client, ours: socket.socket) -> None:
    """Send a large frame, and give up once the socket is full of its first half."""
    async with anyio.create_task_group() as group:
        group.start_soon(client.send_frame, protocol.STDOUT, b"x" * _LARGE)
        await anyio.wait_readable(ours)
        group.cancel_scope.cancel()


def test_a_cancelled_frame_does_not_spoil_the_next() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                client = Client(stream)
                await _sent_half(client, ours)
                async with anyio.create_task_group() as group:
                    group.start_soon(client.send_frame, protocol.ERROR, b"{}")
                    held = b""
                    while len(held) < _LARGE + 2 + 2 * protocol.HEADER.size:
                        await anyio.wait_readable(ours)
                        held += ours.recv(1 << 16)
                return held

    frames = FrameDecoder().feed(anyio.run(main))
    assert [(kind, len(payload)) for kind, payload in frames] == [
        (protocol.STDOUT, _LARGE),
        (protocol.ERROR, 2),
    ]


def test_events_to_nobody_end_quietly() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        async with await UNIXSocketStream.from_socket(theirs) as stream:
            client = Client(stream)
            ours.close()
            client.on_event(Notice(text="is anybody there?"))
            with anyio.fail_after(30):
                await client.send_events()

    anyio.run(main)


def test_events_come_before_the_answer() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                client = Client(stream)
                client.on_event(Notice(text="one"))
                client.on_event(Notice(text="two"))
                await client.flush_events()
                await client.send_line({"result": 3})
            return await _all_of(ours)

    told = [json.loads(line) for line in anyio.run(main).splitlines()]
    assert [each.get("event", {}).get("text") for each in told] == ["one", "two", None]
    assert told[-1] == {"result": 3}


def test_a_full_disk_is_no_bug_of_ours() -> None:
    told = error_json(OSError(errno.ENOSPC, "No space left on device", "/home/record.json"))
    assert (told["kind"], told["exit"]) == ("HostError", 3)
    assert told["message"] == "/home/record.json: No space left on device"
    assert error_json(FileNotFoundError(errno.ENOENT, "No such file"))["exit"] == 70


def test_an_event_whose_sender_is_cancelled_is_sent_by_the_next() -> None:
    async def main() -> bytes:
        ours, theirs = socket.socketpair()
        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                client = Client(stream)
                client.on_event(Notice(text="once"))
                async with client._sending, anyio.create_task_group() as group:
                    group.start_soon(client.flush_events)
                    await anyio.wait_all_tasks_blocked()
                    group.cancel_scope.cancel()
                await client.send_line({"result": 1})
            return await _all_of(ours)

    lines = [json.loads(line) for line in anyio.run(main).splitlines()]
    assert [line.get("result") or line["event"]["text"] for line in lines] == ["once", 1]


def test_a_client_that_asks_nothing_is_hung_up_on() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            async with await UNIXSocketStream.from_socket(theirs) as stream:
                client = Client(stream)
                client.patience = 0.01
                ours.send(b'{"verb": ')
                with anyio.fail_after(30), pytest.raises(HungUp):
                    await client.request()

    anyio.run(main)
