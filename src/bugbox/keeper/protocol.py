# SPDX-License-Identifier: Apache-2.0
"""What client and keeper say to each other, as constants: docs/reference/keeper-protocol.md.

Shared by both ends. Standard library only: the thin clients load it on every command.
"""

from __future__ import annotations

import json
import struct
from typing import Any

__all__ = [
    "ANY_VERSION",
    "DETACH",
    "ERROR",
    "EXIT",
    "FRAME_LIMIT",
    "HEADER",
    "LINE_LIMIT",
    "NOTICE",
    "PROTOCOL",
    "RESIZE",
    "SIGNAL",
    "STDERR",
    "STDIN",
    "STDIN_EOF",
    "STDOUT",
    "TAKEN",
    "WINDOW",
    "Frame",
    "FrameDecoder",
    "ProtocolError",
    "line",
    "pack",
]

PROTOCOL = 1
#: Verbs that a keeper answers whatever the client's version: they must never change their shape.
ANY_VERSION = frozenset({"ping", "retire", "attach"})

# Client to keeper.
STDIN, STDIN_EOF, RESIZE, SIGNAL, DETACH = 0, 1, 2, 3, 4
# Keeper to client.
STDOUT, STDERR, EXIT, NOTICE, ERROR, TAKEN = 10, 11, 12, 13, 14, 15

#: Bytes of input that a client sends before the first of them is TAKEN.
WINDOW = 1 << 18

HEADER = struct.Struct(">BI")
FRAME_LIMIT = 1 << 20
#: A request line holds an argv at most; Linux allows 2 MiB of those.
LINE_LIMIT = 1 << 24

Frame = tuple[int, bytes]


class ProtocolError(Exception):
    """The other end broke a rule of the protocol."""


def line(message: dict[str, Any]) -> bytes:
    """Encode one JSON line. Lone surrogates (bytes that are no text) survive as escapes."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"


def pack(kind: int, payload: bytes | dict[str, Any] = b"") -> bytes:
    """Encode one frame; a dict becomes JSON."""
    if isinstance(payload, dict):
        payload = json.dumps(payload, separators=(",", ":")).encode("ascii")
    return HEADER.pack(kind, len(payload)) + payload


class FrameDecoder:
    """Turn bytes, in whatever pieces they come, into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take more bytes; return the frames they complete. ProtocolError for an oversized one."""
        self._held += data
        found: list[Frame] = []
        at = 0
        while len(self._held) - at >= HEADER.size:
            kind, length = HEADER.unpack_from(self._held, at)
            if length > FRAME_LIMIT:
                raise ProtocolError(f"a frame of {length} bytes")
            end = at + HEADER.size + length
            if len(self._held) < end:
                break
            found.append((kind, bytes(self._held[at + HEADER.size : end])))
            at = end
        del self._held[:at]
        return found
