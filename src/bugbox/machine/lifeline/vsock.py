# SPDX-License-Identifier: Apache-2.0
"""A vsock port of a guest, dialled through the UNIX socket of its VMM.

Firecracker listens on one socket for all ports: after `CONNECT PORT` it passes the connection on
and says `OK`, or closes it when nobody in the guest listens there. A guest that still boots may
let the question hang, so that it has a time limit of its own.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from bugbox.errors import MachineLost
from bugbox.machine.sockets import made_by_vmm

__all__ = ["LIFELINE_PORT", "dial"]

#: Where the lifeline listens (guest/lifeline/vsock.h).
LIFELINE_PORT = 5252
_ANSWER = 32
#: A guest's driver comes up within seconds; what was asked before may be lost.
_SECONDS = 2.0


async def dial(path: Path, port: int, timeout: float = _SECONDS) -> socket.socket:
    """Return a connection to `port` of the guest; OSError when no VMM listens at `path`.

    MachineLost when there is one and the guest does not take the connection, so far.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        with made_by_vmm(path) as there:
            await loop.sock_connect(sock, f"/proc/self/fd/{there}")
        try:
            async with asyncio.timeout(timeout):
                await _ask(sock, port)
        except TimeoutError:
            raise MachineLost(f"the guest does not answer on its port {port} so far") from None
        except ConnectionError as error:
            raise MachineLost(f"the guest's port {port}: {error.strerror}") from error
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(sock: socket.socket, port: int) -> None:
    """Have the connection passed on. Not a byte of what follows the answer is read."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"CONNECT %d\n" % port)
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _ANSWER:
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            raise MachineLost(f"nobody listens on the guest's port {port} so far")
        answer += byte
    if not answer.startswith(b"OK "):
        raise MachineLost(f"the VMM did not connect us: {answer!r}")
