# SPDX-License-Identifier: Apache-2.0
"""One DNS question and its answer, as bytes (RFC 1035). Pure; what is read is a guest's.

Over TCP: QEMU's user-mode network drops what a restricted guest says by UDP, also where it was
asked first.
"""

from __future__ import annotations

import secrets
import socket
import struct

__all__ = ["PORT", "ask", "framed", "read", "unframed", "whole"]

PORT = 53

_A, _IN = 1, 1
_RECURSION_DESIRED, _ANSWER = 0x0100, 0x8000
_HEADER = struct.Struct(">6H")
_RECORD = struct.Struct(">HHIH")
#: Records of an answer that are looked at.
_RECORDS = 32


def ask(name: str, id: int | None = None) -> bytes:
    """Ask for a name's IPv4 addresses."""
    number = secrets.randbelow(1 << 16) if id is None else id
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"no name: {name!r}")
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return (
        _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
        + question
        + struct.pack(">HH", _A, _IN)
    )


def framed(packet: bytes) -> bytes:
    """Put a packet's length before it, as TCP has it."""
    return struct.pack(">H", len(packet)) + packet


def whole(heard: bytes) -> bool:
    """Whether one packet is there."""
    return len(heard) >= 2 and len(heard) - 2 >= int.from_bytes(heard[:2])


def unframed(heard: bytes) -> bytes:
    """Return the first packet; ValueError when it is cut off."""
    if not whole(heard):
        raise ValueError("cut off")
    return heard[2 : 2 + int.from_bytes(heard[:2])]


def read(packet: bytes) -> list[str]:
    """Return the IPv4 addresses in an answer; ValueError when it is none."""
    try:
        _, flags, questions, answers, _, _ = _HEADER.unpack_from(packet)
        if not flags & _ANSWER:
            raise ValueError("not an answer")
        at = _HEADER.size
        for _ in range(min(questions, _RECORDS)):
            at = _after_name(packet, at) + 4
        found = []
        for _ in range(min(answers, _RECORDS)):
            at = _after_name(packet, at)
            kind, group, _, length = _RECORD.unpack_from(packet, at)
            at += _RECORD.size
            data = packet[at : at + length]
            if len(data) != length:
                raise ValueError("cut off")
            if (kind, group, length) == (_A, _IN, 4):
                found.append(socket.inet_ntoa(data))
            at += length
    except (struct.error, IndexError):
        raise ValueError("cut off") from None
    return found


def _after_name(packet: bytes, at: int) -> int:
    """Return where a name ends; what it is does not matter, so no pointer is followed."""
    while (length := packet[at]) != 0:
        if length & 0xC0 == 0xC0:
            return at + 2
        if length & 0xC0:
            raise ValueError("no name")
        at += 1 + length
    return at + 1
