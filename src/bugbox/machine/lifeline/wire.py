# SPDX-License-Identifier: Apache-2.0
"""Frames and fields of the lifeline's protocol (guest/PROTOCOL.md): bytes in, values out.

Whatever comes from a guest may be a lie: `Decoder` and `parse_fields` check each length before
they use it and raise `WireError`; they hold at most one frame's worth of bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from bugbox.errors import GuestError

__all__ = [
    "MAX_DATA",
    "MAX_PAYLOAD",
    "SYNC_SIZE",
    "VERSION",
    "WINDOW",
    "Decoder",
    "Fields",
    "Frame",
    "Tag",
    "Type",
    "WireError",
    "conversation_start",
    "encode",
    "pack_fields",
    "pack_window",
    "parse_fields",
    "parse_window",
    "printable",
    "sync_frame",
]

VERSION = 1
MAGIC = 0xB09B
#: Longest payload of any frame.
MAX_PAYLOAD = 65536
#: Longest payload of a DATA frame.
MAX_DATA = 16384
#: DATA bytes each side may send on a channel before it was granted more.
WINDOW = 65536
#: Most fields in one payload that we take from a guest.
MAX_FIELDS = 1024

_HEAD = struct.Struct("<BBHII")
_CRC = struct.Struct("<I")
_HEADER = _HEAD.size + _CRC.size
_FIELD = struct.Struct("<BI")
_NUMBER = struct.Struct("<q")
_NUMBER_MIN, _NUMBER_MAX = -(2**63), 2**63 - 1

_SYNC_TEXT = b"bugbox lifeline1"
_NONCE = 16
#: Length of a whole SYNC frame.
SYNC_SIZE = _HEADER + len(_SYNC_TEXT) + _NONCE
_SYNC_HEAD = _HEAD.pack(1, 0, MAGIC, 0, SYNC_SIZE - _HEADER)
_PADDING = re.compile(rb"\0*")


class WireError(GuestError):
    """The guest sent bytes that are not the protocol."""

    @property
    def kind(self) -> str:
        """Known as a GuestError where only the name travels."""
        return "GuestError"


class Type(IntEnum):
    """What a frame is for."""

    SYNC = 1
    HELLO = 2
    OPEN = 3
    OPENED = 4
    FAILED = 5
    DATA = 6
    EOF = 7
    WINDOW = 8
    SIGNAL = 9
    RESIZE = 10
    EXIT = 11
    CLOSE = 12
    MILESTONE = 13
    CALL = 14
    RESULT = 15
    ASK = 16
    ANSWER = 17


class Tag(IntEnum):
    """What a field holds."""

    KIND = 1
    ARG = 2
    ENV = 3
    USER = 4
    CWD = 5
    ROWS = 6
    COLS = 7
    TERM = 8
    TERMINAL = 9
    PATH = 10
    SCRIPT = 11
    NAME = 12
    FLAG = 13
    SIZE = 14
    PID = 15
    MODE = 16
    ERRNO = 17
    STEP = 18
    MESSAGE = 19
    CODE = 20
    SIGNO = 21
    TIME = 22
    NONCE = 23
    VERSION = 24
    BOOT_ID = 25
    STARTED = 26
    SECRET = 27
    PORT = 28
    ID = 29
    DATA = 30


class Frame(NamedTuple):
    """One frame. `type` is a plain number: a guest may send one that `Type` does not know."""

    type: int
    flags: int
    channel: int
    payload: bytes


def encode(frame: Frame) -> bytes:
    """Return the bytes of `frame`."""
    if len(frame.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(frame.payload)} bytes")
    head = _HEAD.pack(frame.type, frame.flags, MAGIC, frame.channel, len(frame.payload))
    return b"".join((head, _CRC.pack(crc32(frame.payload, crc32(head))), frame.payload))


def sync_frame(nonce: bytes) -> bytes:
    """Return the bytes of the SYNC frame with this nonce."""
    if len(nonce) != _NONCE:
        raise ValueError(f"a nonce of {len(nonce)} bytes")
    return encode(Frame(Type.SYNC, 0, 0, _SYNC_TEXT + nonce))


def conversation_start(nonce: bytes) -> bytes:
    """Return what completes any half frame of an earlier conversation, and then a SYNC."""
    return bytes(MAX_PAYLOAD + _HEADER) + sync_frame(nonce)


class Decoder:
    """Cut a byte stream into frames.

    A strict decoder (the host's) raises WireError at the first broken frame. A lenient one (a
    guest's) hunts for the next SYNC instead.
    """

    def __init__(self, *, strict: bool = True) -> None:
        self._strict = strict
        self._buffer = bytearray()
        self._need = 1
        #: None: not hunting. b"": any SYNC frame will do. Else exactly this one.
        self._quarry: bytes | None = None
        #: Where a lenient decoder looks on after a broken frame.
        self._resume = 0

    @property
    def buffered(self) -> int:
        """Bytes held back until more arrive; never more than one frame."""
        return len(self._buffer)

    def hunt(self, quarry: bytes = b"") -> None:
        """Forget what is buffered; throw bytes away until `quarry` (or any SYNC frame) comes."""
        self._buffer.clear()
        self._need = SYNC_SIZE
        self._quarry = quarry

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes as they come and return the frames that they complete."""
        buffer = self._buffer
        buffer += data
        if len(buffer) < self._need:
            return []
        frames: list[Frame] = []
        position = 0
        while True:
            if self._quarry is not None:
                position = self._search(position)
                if self._quarry is not None:
                    break
            try:
                position = self._take(position, frames)
                break
            except WireError:
                if self._strict:
                    buffer.clear()
                    raise
                position = self._resume
                self._quarry = b""
        del buffer[:position]
        return frames

    def _take(self, position: int, frames: list[Frame]) -> int:
        """Cut frames from `position` on; return where the first incomplete one begins."""
        with memoryview(self._buffer) as view:
            end = len(view)
            while True:
                if position < end and not view[position]:
                    match = _PADDING.match(view, position)
                    position = match.end() if match else position
                    del match
                if end - position < _HEADER:
                    self._need = _HEADER
                    return position
                kind, flags, magic, channel, length = _HEAD.unpack_from(view, position)
                if magic != MAGIC or length > MAX_PAYLOAD:
                    self._resume = position + 1
                    what = f"length {length}" if magic == MAGIC else f"magic {magic:#06x}"
                    raise WireError(f"the guest sent a frame with the wrong {what}")
                body = position + _HEADER
                if end - body < length:
                    self._need = _HEADER + length
                    return position
                payload = bytes(view[body : body + length])
                expected = crc32(payload, crc32(view[position : position + _HEAD.size]))
                if _CRC.unpack_from(view, position + _HEAD.size)[0] != expected:
                    self._resume = position + 1
                    raise WireError("the guest sent a frame with a wrong checksum")
                frames.append(Frame(kind, flags, channel, payload))
                position = body + length

    def _search(self, position: int) -> int:
        """Look for the quarry; return where it begins, or what may be thrown away so far."""
        buffer = self._buffer
        wanted = self._quarry or _SYNC_HEAD
        while True:
            found = buffer.find(wanted, position)
            if found < 0:
                self._need = SYNC_SIZE
                return max(position, len(buffer) - len(wanted) + 1)
            if len(buffer) - found < SYNC_SIZE:
                self._need = SYNC_SIZE
                return found
            frame = bytes(buffer[found : found + SYNC_SIZE])
            if self._quarry or frame == sync_frame(frame[-_NONCE:]):
                self._quarry = None
                return found
            position = found + 1


class Fields:
    """The fields of one control payload, in their order."""

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[int, bytes]]) -> None:
        self._items = items

    def __repr__(self) -> str:
        return f"Fields({self._items!r})"

    def all(self, tag: Tag) -> list[bytes]:
        """Return every value of `tag`."""
        return [value for number, value in self._items if number == tag]

    def get(self, tag: Tag) -> bytes | None:
        """Return the first value of `tag`, or None."""
        return next((value for number, value in self._items if number == tag), None)

    def first(self, tag: Tag) -> bytes:
        """Return the first value of `tag`; WireError when there is none."""
        value = self.get(tag)
        if value is None:
            raise WireError(f"the guest left out {tag.name}")
        return value

    def text(self, tag: Tag, *, limit: int = 4096) -> str:
        """Return the first value of `tag` as text that is safe to print; empty when missing."""
        return printable(self.get(tag) or b"", limit)

    def number(
        self,
        tag: Tag,
        *,
        minimum: int = 0,
        maximum: int = _NUMBER_MAX,
        default: int | None = None,
    ) -> int:
        """Return the first value of `tag` as a number within limits; WireError otherwise."""
        value = self.get(tag)
        if value is None and default is not None:
            return default
        if value is None or len(value) != _NUMBER.size:
            raise WireError(f"the guest sent no number as {tag.name}")
        number: int = _NUMBER.unpack(value)[0]
        if not minimum <= number <= maximum:
            raise WireError(f"the guest sent {tag.name} = {number}")
        return number

    def has(self, tag: Tag) -> bool:
        """Whether there is a field `tag`."""
        return any(number == tag for number, _ in self._items)


def pack_fields(fields: Iterable[tuple[Tag, bytes | str | int]]) -> bytes:
    """Return the payload that holds these fields; ValueError when it would be too long."""
    parts: list[bytes] = []
    total = 0
    for tag, value in fields:
        if isinstance(value, int):
            if not _NUMBER_MIN <= value <= _NUMBER_MAX:
                raise ValueError(f"{tag.name} = {value} does not fit")
            value = _NUMBER.pack(value)
        elif isinstance(value, str):
            value = value.encode("utf-8", "surrogateescape")
        total += _FIELD.size + len(value)
        if total > MAX_PAYLOAD:
            raise ValueError(f"{tag.name} makes the request longer than {MAX_PAYLOAD} bytes")
        parts += (_FIELD.pack(tag, len(value)), value)
    return b"".join(parts)


def parse_fields(payload: bytes) -> Fields:
    """Return the fields of a control payload."""
    items: list[tuple[int, bytes]] = []
    position, end = 0, len(payload)
    while position < end:
        if end - position < _FIELD.size:
            raise WireError("the guest sent half a field")
        tag, length = _FIELD.unpack_from(payload, position)
        position += _FIELD.size
        if length > end - position:
            raise WireError(f"the guest sent a field of {length} bytes where {end - position} are")
        if len(items) == MAX_FIELDS:
            raise WireError(f"the guest sent more than {MAX_FIELDS} fields")
        items.append((tag, payload[position : position + length]))
        position += length
    return Fields(items)


def parse_window(payload: bytes) -> int:
    """Return what a WINDOW frame grants."""
    if len(payload) != _CRC.size:
        raise WireError(f"the guest sent a WINDOW of {len(payload)} bytes")
    granted: int = _CRC.unpack(payload)[0]
    return granted


def pack_window(granted: int) -> bytes:
    """Return the payload of a WINDOW frame."""
    return _CRC.pack(granted)


def printable(raw: bytes, limit: int = 4096) -> str:
    """Return a guest's bytes as one line of text without control characters."""
    text = raw[:limit].decode("utf-8", "backslashreplace")
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe + ("…" if len(raw) > limit else "")
