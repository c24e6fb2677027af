# SPDX-License-Identifier: Apache-2.0
"""A way into a guest through its network card: QEMU's user-mode network forwards a port.

The forwarding is there for as long as somebody holds it, on a port of 127.0.0.1 that the host's
kernel chooses. It works with `restrict=on` too: the guest can answer and cannot begin. Of TCP only:
a restricted guest's UDP is dropped whoever began (libslirp 4.7, udp_input).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anyio

from bugbox.errors import GuestError

__all__ = ["Flow", "Forwarding", "forwarded", "parse_usernet"]

#: Runs a command of QEMU's human monitor and returns what it prints.
Ask = Callable[[str], Awaitable[str]]

_HOST = "127.0.0.1"
_FORWARD = "HOST_FORWARD"
#: A connection in one of these states was not taken by the guest so far.
_UNDECIDED = ("SYN_SENT", "SYN_RCVD", "LISTEN", "CLOSED")
_ROW = re.compile(r"^\s+(TCP|UDP)\[([^\]\n]{1,32})\]\s+-?\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s")


@dataclass(frozen=True, slots=True)
class Flow:
    """A row of `info usernet`: of a forwarding or of one connection through it."""

    protocol: str
    state: str
    #: On the host, and in the guest.
    port: int
    guest_port: int


def parse_usernet(text: str) -> list[Flow]:
    """Read what `info usernet` prints; lines that are no rows are left out."""
    rows = (_ROW.match(line) for line in text.splitlines())
    return [
        Flow(protocol=row[1].lower(), state=row[2], port=int(row[4]), guest_port=int(row[6]))
        for row in rows
        if row
    ]


class Forwarding:
    """A port of the guest, reachable on this host."""

    def __init__(self, ask: Ask, port: int) -> None:
        self._ask = ask
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        """Where on this host it is."""
        return _HOST, self._port

    async def taken(self) -> bool | None:
        """Whether the guest took the connection; None: QEMU does not know so far."""
        for flow in parse_usernet(await self._ask("info usernet")):
            if flow.protocol == "tcp" and flow.port == self._port and flow.state != _FORWARD:
                return None if flow.state in _UNDECIDED else True
        return None


@contextlib.asynccontextmanager
async def forwarded(ask: Ask, lock: anyio.Lock, nic: str, port: int) -> AsyncIterator[Forwarding]:
    """Forward a port of the guest's card `nic` while the context is open."""
    # Two at once could not tell whose is the port that is new.
    async with lock:
        before = await _open(ask)
        said = await ask(f"hostfwd_add {nic} tcp:{_HOST}:0-:{port}")
        new = await _open(ask) - before
    ours = [flow for flow in new if flow.guest_port == port]
    if len(ours) != 1:
        raise GuestError(f"QEMU forwards no port {port}: {said.strip() or 'it did not say why'}")
    try:
        yield Forwarding(ask, ours[0].port)
    finally:
        # If this cannot be said, QEMU is gone, and the forwarding with it.
        with anyio.CancelScope(shield=True), contextlib.suppress(GuestError):
            await ask(f"hostfwd_remove {nic} tcp:{_HOST}:{ours[0].port}")


async def _open(ask: Ask) -> set[Flow]:
    flows = parse_usernet(await ask("info usernet"))
    return {flow for flow in flows if flow.protocol == "tcp" and flow.state == _FORWARD}
