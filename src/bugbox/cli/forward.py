# SPDX-License-Identifier: Apache-2.0
"""bugbox forward: a port of the guest on this host's 127.0.0.1, for as long as the command runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import complain, document, printable, say
from bugbox.errors import BugboxError, HostError, UserError
from bugbox.keeper.client import stream
from bugbox.keeper.stream import relay
from bugbox.paths import Home

__all__ = ["forward", "parse"]

#: Connections at once; further ones wait.
_MOST = 64


def forward(id: str, port: str, /, *, json: bool = False) -> int:
    """Bring a port of a machine to 127.0.0.1 of this host, until Ctrl-C.

    A puzzle opens the ports that its manifest names; a bare machine opens any.

    Args:
        id: Which session.
        port: PORT, a number or the name it has in the manifest, or PORT:HOSTPORT.
        json: Print one JSON document, when the port is open.
    """
    wanted, host_port = parse(port)
    told = ask("forward", {"id": id, "port": wanted})
    with _listener(told["port"] if host_port is None else host_port) as listener:
        there = listener.getsockname()[1]
        if json:
            document({**told, "host_port": there})
        else:
            where = f"port {told['port']} of {told['id']}"
            say(f"{_address(told, there)} leads to {where}; Ctrl-C ends it")
        _flush()
        _serve(listener, str(told["id"]), int(told["port"]))
    return 0


def parse(text: str) -> tuple[str, int | None]:
    """Part PORT:HOSTPORT; None without the second half. UserError for what is no port."""
    port, colon, host_port = text.partition(":")
    if not colon:
        return port, None
    if not (host_port.isascii() and host_port.isdigit() and int(host_port) <= 65535):
        raise UserError(f"{text}: expected PORT or PORT:HOSTPORT, such as 80:8080")
    return port, int(host_port)


def _address(told: dict[str, Any], port: int) -> str:
    if told["protocol"] != "http":
        return f"127.0.0.1:{port}"
    return f"http://127.0.0.1:{port}/{printable(str(told['path'])).lstrip('/')}"


def _flush() -> None:
    import sys

    sys.stdout.flush()  # whoever waits for the line reads it from a pipe


def _listener(port: int) -> socket.socket:
    # On 127.0.0.1 only: nobody else on the network is meant.
    try:
        return socket.create_server(("127.0.0.1", port), backlog=_MOST)
    except OSError as error:
        raise HostError(
            f"port {port} of this host: {error.strerror}",
            hint="PORT:HOSTPORT names another; PORT:0 takes any that is free",
        ) from error


def _serve(listener: socket.socket, id: str, port: int) -> None:
    room = threading.BoundedSemaphore(_MOST)

    def carry(connection: socket.socket) -> None:
        try:
            with connection:
                _carry(connection, id, port)
        finally:
            room.release()

    while True:
        room.acquire()
        connection, _ = listener.accept()
        threading.Thread(target=carry, args=(connection,), daemon=True).start()


def _carry(connection: socket.socket, id: str, port: int) -> None:
    """Copy both ways until the guest's end is closed, or ours is torn down."""
    try:
        with stream(Home(), "dial", {"id": id, "port": port}) as link:
            with contextlib.suppress(ConnectionError):
                relay(link, stdin=connection.fileno(), stdout=connection.fileno())
    except BugboxError as error:
        complain(f"bugbox: {printable(error.message)}")
