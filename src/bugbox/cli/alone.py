# SPDX-License-Identifier: Apache-2.0
"""--no-keeper: start, shell, check and stop in this very process.

The machine is adopted from its record, used, and let go of again; it runs on without us.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream

from bugbox.cli.events import as_dict
from bugbox.cli.loop import run_async
from bugbox.config import Settings, load
from bugbox.errors import BugboxError, StateError
from bugbox.events import listening
from bugbox.keeper import protocol
from bugbox.keeper.identity import code_version
from bugbox.keeper.start import locked
from bugbox.keeper.stream import KeeperGone, Stream, error_of
from bugbox.keeper.streams import STREAMS
from bugbox.keeper.wire import Client, HungUp, error_json
from bugbox.paths import Home
from bugbox.session.manager import Manager

__all__ = ["open_stream", "request"]

OnEvent = Callable[[Mapping[str, Any]], None]
_VERBS = ("start", "check", "stop", "ps")


def request(home: Home, verb: str, args: Mapping[str, Any], on_event: OnEvent) -> Any:
    """Do what the keeper would, and answer the same."""
    _refuse_company(home)
    if verb not in _VERBS:
        raise StateError(f"{verb} needs the keeper", hint="leave --no-keeper out")
    settings = load(home)

    async def work() -> Any:
        with listening(lambda event: on_event(as_dict(event))):
            async with Manager(home, settings) as manager:
                await manager.adopt_all()
                return await manager.answer(verb, args)

    return run_async(work)


def open_stream(home: Home, verb: str, args: Mapping[str, Any]) -> Stream:
    """Open what the keeper would: its end of the stream lives in a thread of ours."""
    _refuse_company(home)
    ours, theirs = socket.socketpair()
    settings = load(home)
    threading.Thread(target=lambda: anyio.run(_serve, home, settings, theirs), daemon=True).start()
    message = {
        "protocol": protocol.PROTOCOL,
        "version": code_version(),
        "verb": verb,
        "args": {**args},
    }
    ours.sendall(protocol.line(message))
    held = b""
    while b"\n" not in held:
        data = ours.recv(1 << 16)
        if not data:
            raise KeeperGone("the machine could not be reached")
        held += data
    text, rest = held.split(b"\n", 1)
    answer = json.loads(text)
    if "error" in answer:
        raise error_of(answer["error"])
    return Stream(ours, answer["stream"], rest)


def _refuse_company(home: Home) -> None:
    home.prepare()
    if locked(home):
        raise StateError("a keeper runs and holds the machines", hint="leave --no-keeper out")


async def _serve(home: Home, settings: Settings, sock: socket.socket) -> None:
    """Be a keeper for one connection."""
    async with (
        await UNIXSocketStream.from_socket(sock) as stream,
        Manager(home, settings) as manager,
    ):
        client = Client(stream)
        try:
            asked = await client.request()
            await manager.adopt_all()
            await STREAMS[asked["verb"]](manager, client, asked["args"])
        except HungUp:
            return
        except BugboxError as error:
            if client.streaming:
                await client.send_frame(protocol.ERROR, error_json(error))
            else:
                await client.send_line({"error": error_json(error)})
