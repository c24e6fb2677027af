# SPDX-License-Identifier: Apache-2.0
"""Tell a guest its address when it asks, as QEMU's user-mode network does (RFC 2131, 2132).

There is one guest, and it gets the one address that there is, for good: so an answer is a function
of the question alone, and there is nothing to remember. What the guest sends is hostile until read.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bugbox.network import namespace
from bugbox.network.net import Net

__all__ = ["LIMIT", "TO", "Offer", "answer", "listen", "offer_of"]

#: Longest question that is read, bytes.
LIMIT = 1500
_SERVER_PORT = 67
#: Where answers go: a guest that asks has no address yet.
TO = ("255.255.255.255", 68)
#: op, htype, hlen, hops, xid, secs, flags; four addresses; chaddr; sname and file.
_HEAD = struct.Struct("!4BIHH4s4s4s4s16s192x")
_MAGIC = b"\x63\x82\x53\x63"
_ASK, _REPLY, _ETHERNET = 1, 2, 1
_BROADCAST = 0x8000
_FOREVER = b"\xff" * 4
# Kinds of message, and options, by their numbers.
_DISCOVER, _OFFER, _REQUEST, _ACK, _NAK, _INFORM = b"\x01", 2, b"\x03", 5, 6, b"\x08"
_PAD, _MASK, _ROUTER, _DNS, _MTU, _WANTED, _LEASE, _KIND, _SERVER, _END = (
    0, 1, 3, 6, 26, 50, 51, 53, 54, 255,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a guest is told."""

    address: IPv4Address
    network: IPv4Network
    router: IPv4Address
    dns: IPv4Address
    mtu: int


def offer_of(net: Net) -> Offer:
    """Return what the guest of `net` is told."""
    return Offer(
        address=net.guest_address,
        network=IPv4Network((net.guest_address, net.prefix), strict=False),
        router=net.gateway,
        dns=net.dns,
        mtu=net.mtu,
    )


def answer(question: bytes, offer: Offer) -> bytes | None:
    """Return the answer to a guest's question; None for what is none, or not for us (pure)."""
    if len(question) < _HEAD.size + len(_MAGIC) or len(question) > LIMIT:
        return None
    op, kind, length, _, xid, _, flags, client, _, _, _, hardware = _HEAD.unpack_from(question)
    if (op, kind, length) != (_ASK, _ETHERNET, 6):
        return None
    if question[_HEAD.size : _HEAD.size + 4] != _MAGIC:
        return None
    asked = _options(question[_HEAD.size + 4 :])
    if asked.get(_SERVER, offer.router.packed) != offer.router.packed:
        return None
    wanted = asked.get(_WANTED, client)
    asks = asked.get(_KIND)
    if asks == _DISCOVER:
        reply, yours = _OFFER, offer.address.packed
    elif asks == _REQUEST:
        right = wanted == offer.address.packed
        reply, yours = (_ACK, wanted) if right else (_NAK, bytes(4))
    elif asks == _INFORM:
        reply, yours = _ACK, bytes(4)
    else:
        return None
    head = _HEAD.pack(
        _REPLY, _ETHERNET, 6, 0, xid, 0, flags | _BROADCAST,
        client if reply == _ACK else bytes(4), yours, bytes(4), bytes(4), hardware,
    )  # fmt: skip
    options = [(_KIND, bytes([reply])), (_SERVER, offer.router.packed)]
    if reply != _NAK:
        options += [
            (_MASK, offer.network.netmask.packed),
            (_ROUTER, offer.router.packed),
            (_DNS, offer.dns.packed),
            (_MTU, struct.pack("!H", offer.mtu)),
        ]
        if yours != bytes(4):
            options.append((_LEASE, _FOREVER))
    told = b"".join(bytes([number, len(value)]) + value for number, value in options)
    return head + _MAGIC + told + bytes([_END])


def _options(data: bytes) -> dict[int, bytes]:
    """Options by number, up to the first that is cut short; the first of a number counts."""
    found: dict[int, bytes] = {}
    place = 0
    while place < len(data) and data[place] != _END:
        if data[place] == _PAD:
            place += 1
            continue
        value = data[place + 2 : place + 2 + data[place + 1]] if place + 1 < len(data) else b""
        if place + 1 >= len(data) or len(value) < data[place + 1]:
            break
        found.setdefault(data[place], value)
        place += 2 + len(value)
    return found


@contextlib.contextmanager
def listen(net: Net) -> Iterator[socket.socket]:
    """Have the socket on which a guest asks; answers go to `TO`, all on its wire."""
    link = namespace.inside(net.name, lambda: _bound(net.tap))
    try:
        yield link
    finally:
        link.close()


def _bound(tap: str) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, tap.encode())
        link.bind(("0.0.0.0", _SERVER_PORT))
    except BaseException:
        link.close()
        raise
    return link
