# SPDX-License-Identifier: Apache-2.0
"""Frames and fields: whatever is encoded comes back; whatever else comes is refused."""

import struct
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bugbox.machine.lifeline import wire
from bugbox.machine.lifeline.wire import (
    MAX_PAYLOAD,
    Decoder,
    Frame,
    Tag,
    Type,
    WireError,
    conversation_start,
    encode,
    pack_fields,
    parse_fields,
    printable,
    sync_frame,
)

frames = st.builds(
    Frame,
    type=st.integers(1, 255),
    flags=st.integers(0, 255),
    channel=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=300),
)
values = st.one_of(st.binary(max_size=50), st.integers(-(2**63), 2**63 - 1))
fields = st.lists(st.tuples(st.sampled_from(list(Tag)), values), max_size=30)


def test_the_page_and_the_code_agree_on_a_frame() -> None:
    """Offsets and byte order as guest/PROTOCOL.md has them, the checksum by hand."""
    raw = encode(Frame(Type.DATA, 2, 7, b"ab"))
    assert raw[:12] == bytes([6, 2, 0x9B, 0xB0, 7, 0, 0, 0, 2, 0, 0, 0])
    crc = 0xFFFFFFFF
    for byte in raw[:12] + b"ab":
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    assert struct.unpack("<I", raw[12:16])[0] == crc ^ 0xFFFFFFFF
    assert raw[16:] == b"ab"
    assert len(sync_frame(bytes(16))) == 48


@given(st.lists(frames, max_size=20), st.lists(st.integers(1, 50), min_size=1), st.integers(0, 40))
def test_frames_come_back_however_they_are_cut(
    sent: list[Frame], cuts: list[int], padding: int
) -> None:
    raw = bytes(padding).join([b"", *(encode(frame) for frame in sent), b""])
    decoder, received, position, turn = Decoder(), [], 0, 0
    while position < len(raw):
        size = cuts[turn % len(cuts)]
        received += decoder.feed(raw[position : position + size])
        position, turn = position + size, turn + 1
    assert received == sent
    assert decoder.buffered < 16  # trailing padding waits for what may follow


@given(fields)
def test_fields_come_back(sent: list[tuple[Tag, bytes | int]]) -> None:
    parsed = parse_fields(pack_fields(sent))
    for tag in Tag:
        expected = [
            struct.pack("<q", value) if isinstance(value, int) else value
            for name, value in sent
            if name == tag
        ]
        assert parsed.all(tag) == expected
        assert parsed.get(tag) == (expected[0] if expected else None)
        assert parsed.has(tag) == bool(expected)


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_come_back(number: int) -> None:
    parsed = parse_fields(pack_fields([(Tag.SIZE, number)]))
    assert parsed.number(Tag.SIZE, minimum=-(2**63)) == number


@given(st.binary(max_size=400))
def test_any_bytes_are_fields_or_an_error(raw: bytes) -> None:
    try:
        parse_fields(raw)
    except WireError as error:
        assert error.kind == "GuestError"


@settings(max_examples=300)
@given(st.binary(max_size=2000), st.binary(max_size=100), st.binary(min_size=16, max_size=16))
def test_a_hunt_finds_its_sync_in_any_rubbish(rubbish: bytes, tail: bytes, nonce: bytes) -> None:
    wanted, after = sync_frame(nonce), encode(Frame(Type.HELLO, 0, 0, tail))
    for quarry, strict in ((wanted, True), (b"", False)):
        decoder = Decoder(strict=strict)
        decoder.hunt(quarry)
        received = []
        for start in range(0, len(rubbish), 7):
            received += decoder.feed(rubbish[start : start + 7])
        assert decoder.buffered <= MAX_PAYLOAD + 16
        received += decoder.feed(wanted + after)
        assert [frame.type for frame in received[-2:]] == [Type.SYNC, Type.HELLO]
        assert received[-1].payload == tail


def test_a_hunt_ignores_the_sync_of_an_earlier_try() -> None:
    old, new = sync_frame(b"o" * 16), sync_frame(b"n" * 16)
    decoder = Decoder()
    decoder.hunt(new)
    assert decoder.feed(old + encode(Frame(Type.HELLO, 0, 0, b"old")) + new[:20]) == []
    assert [frame.payload[-1:] for frame in decoder.feed(new[20:])] == [b"n"]


@given(st.integers(0, MAX_PAYLOAD + 16))
def test_the_start_completes_any_half_frame(cut: int) -> None:
    half = encode(Frame(Type.DATA, 1, 3, b"\xee" * MAX_PAYLOAD))[:cut]
    decoder = Decoder(strict=False)
    received = decoder.feed(half + conversation_start(b"n" * 16))
    assert received[-1].type == Type.SYNC
    assert all(frame.payload.count(0xEE) == MAX_PAYLOAD for frame in received[:-1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({2: 0}, "magic"),
        ({8: 1, 10: 1}, "length 65537"),
        ({11: 255}, "length"),
        ({12: 1}, "checksum"),
        ({4: 9}, "checksum"),
        ({17: 0}, "checksum"),
    ],
)
def test_a_broken_frame_is_an_error(change: dict[int, int], told: str) -> None:
    raw = bytearray(encode(Frame(Type.DATA, 1, 1, b"ab")))
    for place, value in change.items():
        raw[place] = raw[place] ^ value if place == 12 else value
    with pytest.raises(WireError, match=told):
        Decoder().feed(bytes(raw))


def test_a_giant_length_is_refused_before_its_bytes_come() -> None:
    head = struct.pack("<BBHII", 6, 1, wire.MAGIC, 1, 0xFFFFFFFF) + bytes(4)
    decoder = Decoder()
    with pytest.raises(WireError, match="length 4294967295"):
        decoder.feed(head)
    assert decoder.buffered == 0


def test_no_more_than_a_frame_is_held_back() -> None:
    raw = encode(Frame(Type.DATA, 1, 1, bytes(MAX_PAYLOAD)))
    decoder = Decoder()
    for start in range(0, len(raw) - 1, 1000):
        decoder.feed(raw[start : min(start + 1000, len(raw) - 1)])
        assert decoder.buffered <= len(raw)
    assert len(decoder.feed(raw[-1:])) == 1


def test_missing_and_wrong_values_are_errors() -> None:
    parsed = parse_fields(pack_fields([(Tag.CODE, 300), (Tag.NAME, b"12345")]))
    assert parsed.number(Tag.SIZE, default=4) == 4
    for call in (
        lambda: parsed.number(Tag.CODE, maximum=255),
        lambda: parsed.number(Tag.NAME),
        lambda: parsed.number(Tag.NAME, default=1),
        lambda: parsed.number(Tag.SIZE),
        lambda: parsed.first(Tag.PATH),
        lambda: parse_fields(pack_fields([(Tag.ARG, b"")] * 1025)),
        lambda: wire.parse_window(b"123"),
    ):
        with pytest.raises(WireError):
            call()


def test_what_we_send_is_checked_too() -> None:
    with pytest.raises(ValueError, match="ARG makes the request longer"):
        pack_fields([(Tag.ARG, bytes(40000)), (Tag.ARG, bytes(40000))])
    with pytest.raises(ValueError, match="does not fit"):
        pack_fields([(Tag.TIME, 2**63)])
    with pytest.raises(ValueError, match="65537"):
        encode(Frame(Type.DATA, 0, 1, bytes(65537)))
    with pytest.raises(ValueError, match="nonce"):
        sync_frame(b"short")


def test_a_guests_text_is_safe_to_print() -> None:
    assert printable(b"a\x1b[31mb\n\xff\xc3\xa9") == "a\\x1b[31mb\\n\\xffé"
    assert printable("\u202eevil".encode()) == "\\u202eevil"
    assert printable(b"x" * 10, 4) == "xxxx…"


def test_speed() -> None:
    """No byte is looked at one by one: 64 MB of frames, and of zeros, in a moment."""
    raw = encode(Frame(Type.DATA, 1, 1, Random(1).randbytes(16384))) * 4000
    begun = time.monotonic()
    decoder = Decoder()
    count = sum(len(decoder.feed(raw[i : i + 262144])) for i in range(0, len(raw), 262144))
    assert count == 4000
    zeros = bytes(1 << 20)
    for _ in range(64):
        assert decoder.feed(zeros) == []
    decoder.hunt(sync_frame(bytes(16)))
    for _ in range(64):
        decoder.feed(zeros)
    assert time.monotonic() - begun < 20
