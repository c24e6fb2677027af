# SPDX-License-Identifier: Apache-2.0
"""Unpack the old LZ4 stream format, in which Debian's kernel is packed.

The standard library has no LZ4, and one kernel a release is not worth a dependency: this takes
a second, once. The stream is a magic number, then blocks of 8 MiB, each with its packed length in
front. A block is a row of sequences: a token (two lengths in one byte), literal bytes, and a
match: copy so many bytes from so far back.
"""

from __future__ import annotations

import struct

__all__ = ["MAGIC", "unpack"]

MAGIC = b"\x02\x21\x4c\x18"
_BLOCK = 8 << 20
_SHORTEST_MATCH = 4


def unpack(stream: bytes, largest: int = 1 << 30) -> bytes:
    """Return the unpacked bytes; what follows the last block is ignored. ValueError: damaged."""
    if not stream.startswith(MAGIC):
        raise ValueError("not an LZ4 stream")
    out = bytearray()
    at = 4
    while at + 4 <= len(stream):
        (size,) = struct.unpack_from("<I", stream, at)
        block = stream[at + 4 : at + 4 + size]
        if len(block) != size:
            # The kernel's build appends the unpacked length: four bytes that look like a block.
            break
        unpacked = _block(block)
        out += unpacked
        if len(out) > largest:
            raise ValueError("unpacks to more than is allowed")
        at += 4 + size
        if len(unpacked) < _BLOCK:
            break
    return bytes(out)


def _block(block: bytes) -> bytearray:
    out = bytearray()
    at, end = 0, len(block)
    try:
        while at < end:
            token = block[at]
            at += 1
            length = token >> 4
            if length:
                if length == 15:
                    length, at = _longer(block, at, length)
                out += block[at : at + length]
                at += length
                if at >= end:
                    break
            back = block[at] | block[at + 1] << 8
            at += 2
            length = token & 15
            if length == 15:
                length, at = _longer(block, at, length)
            _copy(out, back, length + _SHORTEST_MATCH)
    except IndexError:
        raise ValueError("an LZ4 block is cut short") from None
    if at != end or len(out) > _BLOCK:
        raise ValueError("an LZ4 block is damaged")
    return out


def _longer(block: bytes, at: int, length: int) -> tuple[int, int]:
    while True:
        more = block[at]
        at += 1
        length += more
        if more != 255:
            return length, at


def _copy(out: bytearray, back: int, length: int) -> None:
    start = len(out) - back
    if back == 0 or start < 0:
        raise ValueError("an LZ4 match points outside its block")
    if back >= length:
        out += out[start : start + length]
    else:
        # The match overlaps what it makes: its bytes repeat with the period `back`.
        out += (bytes(out[start:]) * (length // back + 1))[:length]
