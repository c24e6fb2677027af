# SPDX-License-Identifier: Apache-2.0
"""Pass on what a machine may send out: connections to goals, and questions for names.

It runs in a process of its own (machine.qemu.gate), beside one machine, and ends with it. What the
guest sends is bytes to be passed on, but for questions for names, of which only the question is
read.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

__all__ = ["answer", "question", "serve"]

#: Connections, and questions under way, of one machine.
_MOST_CONNECTIONS = 256
_MOST_QUESTIONS = 64
_CONNECT_TIMEOUT = 20.0
_NAME_TIMEOUT = 5.0
_PIECE = 1 << 16
_PORT = 53
_REFUSED = 5
_A, _IN = 1, 1

Given = tuple[str, tuple[str, int], socket.socket]
Names = Mapping[str, Sequence[str]]


def serve(
    control: socket.socket, given: Sequence[Given], names: Names | None, servers: Sequence[str]
) -> None:
    """Serve until the other end of `control` is closed.

    `given` are the machine's listening sockets, each with the kind and the address meant. `names`
    are all the names that are known; None: any question is passed on to `servers`.
    """
    asyncio.run(_serve(control, given, names, servers))


async def _serve(
    control: socket.socket, given: Sequence[Given], names: Names | None, servers: Sequence[str]
) -> None:
    loop = asyncio.get_running_loop()
    limit = asyncio.Semaphore(_MOST_CONNECTIONS)
    with control, contextlib.ExitStack() as stack:
        for kind, goal, sock in given:
            sock.setblocking(False)
            if kind == "tcp":
                server = await asyncio.start_server(partial(_pass_on, goal, limit), sock=sock)
                stack.callback(server.close)
            else:
                make = partial(_Resolver, names, servers)
                transport, _ = await loop.create_datagram_endpoint(make, sock=sock)
                stack.callback(transport.close)
        control.setblocking(False)
        with contextlib.suppress(OSError):
            while await loop.sock_recv(control, 4096):
                pass  # nothing is ever said: its end is what matters


async def _pass_on(
    goal: tuple[str, int],
    limit: asyncio.Semaphore,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Connect to the goal, and copy both ways until both have ended."""
    if limit.locked():
        writer.transport.abort()
        return
    async with limit:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                there_reader, there = await asyncio.open_connection(*goal)
        except (OSError, TimeoutError):
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, there))
                group.create_task(_copy(there_reader, writer))
        except* OSError:
            pass
        finally:
            writer.transport.abort()
            there.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _Resolver(asyncio.DatagramProtocol):
    """Answers questions for names."""

    def __init__(self, names: Names | None, servers: Sequence[str]) -> None:
        self._names = names
        self._servers = servers
        self._transport: asyncio.DatagramTransport | None = None
        self._asked: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer at once, or pass the question on."""
        assert self._transport is not None
        asked = question(data)
        if asked is None or len(self._asked) >= _MOST_QUESTIONS:
            return
        if self._names is not None:
            self._transport.sendto(answer(data, asked, self._names), addr)
            return
        task = asyncio.get_running_loop().create_task(self._pass_on(data, addr))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _pass_on(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        for server in self._servers:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                try:
                    sock.connect((server, _PORT))
                    await loop.sock_sendall(sock, data)
                    async with asyncio.timeout(_NAME_TIMEOUT):
                        while (said := await loop.sock_recv(sock, 4096))[:2] != data[:2]:
                            pass
                except (OSError, TimeoutError):
                    continue
                self._transport.sendto(said, addr)
                return


def question(data: bytes) -> tuple[str, int, int] | None:
    """Read a message of the domain name system: name, type, and where its question ends.

    None unless it is a question, one, and all of it is there.
    """
    if len(data) < 12 or len(data) > 512:
        return None
    _, flags, questions = struct.unpack_from("!HHH", data)
    if flags & 0xF800 or questions != 1:
        return None
    labels, at = [], 12
    while at < len(data) and data[at]:
        length = data[at]
        label = data[at + 1 : at + 1 + length]
        if length > 63 or len(label) != length:
            return None
        labels.append(label.decode("latin-1").lower())
        at += 1 + length
    if at + 5 > len(data):
        return None
    kind, family = struct.unpack_from("!HH", data, at + 1)
    return (".".join(labels), kind, at + 5) if family == _IN else None


def answer(data: bytes, asked: tuple[str, int, int], names: Names) -> bytes:
    """Answer a question from what is known; a name that is not allowed is refused."""
    name, kind, end = asked
    known = names.get(name)
    found = list(known or ()) if kind == _A else []
    code = 0 if known is not None else _REFUSED
    # It is an answer; recursion is wished for as it was, and there is some.
    flags = 0x8080 | (data[2] & 1) << 8 | code
    head = data[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
    rows = (
        struct.pack("!HHHIH4s", 0xC00C, _A, _IN, 60, 4, socket.inet_aton(address))
        for address in found
    )
    return head + data[12:end] + b"".join(rows)
