# SPDX-License-Identifier: Apache-2.0
"""A guest asks for its address: what it is told, and what is no question."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.network.dhcp import Offer, answer

OFFER = Offer(
    address=IPv4Address("10.0.2.15"),
    network=IPv4Network("10.0.2.0/24"),
    router=IPv4Address("10.0.2.2"),
    dns=IPv4Address("10.0.2.3"),
    mtu=1400,
)
MAC = bytes.fromhex("525400123456")
OURS, OTHER = IPv4Address("10.0.2.15").packed, IPv4Address("10.0.2.16").packed


def question(*options: tuple[int, bytes], client: bytes = bytes(4), kind: int = 1) -> bytes:
    head = struct.pack("!4BIHH", kind, 1, 6, 0, 0xABCD1234, 3, 0) + client + bytes(12)
    told = b"".join(bytes([number, len(value)]) + value for number, value in options)
    return head + MAC.ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63" + told + b"\xff"


def told(reply: bytes | None) -> dict[str, object]:
    assert reply is not None
    assert reply[:8] == bytes([2, 1, 6, 0]) + struct.pack("!I", 0xABCD1234)
    assert reply[28:34] == MAC and reply[236:240] == b"\x63\x82\x53\x63" and reply[-1] == 255
    options, place = {}, 240
    while reply[place] != 255:
        options[reply[place]] = reply[place + 2 : place + 2 + reply[place + 1]]
        place += 2 + reply[place + 1]
    return {"address": str(IPv4Address(reply[16:20])), **{str(k): v for k, v in options.items()}}


WHAT = {
    "54": bytes([10, 0, 2, 2]),
    "1": bytes([255, 255, 255, 0]),
    "3": bytes([10, 0, 2, 2]),
    "6": bytes([10, 0, 2, 3]),
    "26": struct.pack("!H", 1400),
    "51": b"\xff\xff\xff\xff",
}


def test_the_usual_conversation() -> None:
    offered = told(answer(question((53, b"\x01"), (55, b"\x01\x03\x06")), OFFER))
    assert offered == {"address": "10.0.2.15", "53": b"\x02", **WHAT}
    asked = question((53, b"\x03"), (54, bytes([10, 0, 2, 2])), (50, OURS))
    assert told(answer(asked, OFFER)) == {"address": "10.0.2.15", "53": b"\x05", **WHAT}
    # Renewed, which nobody needs to: by its own address.
    renewed = told(answer(question((53, b"\x03"), client=OURS), OFFER))
    assert renewed["53"] == b"\x05"


def test_another_address_is_refused() -> None:
    refused = told(answer(question((53, b"\x03"), (50, OTHER)), OFFER))
    assert refused == {"address": "0.0.0.0", "53": b"\x06", "54": bytes([10, 0, 2, 2])}


def test_an_inform_is_told_no_address() -> None:
    informed = told(answer(question((53, b"\x08"), client=OURS), OFFER))
    assert informed["address"] == "0.0.0.0" and "51" not in informed and informed["53"] == b"\x05"


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        question((53, b"\x01"))[:239],
        question((53, b"\x01"), kind=2),
        question((53, b"\x07")),
        question((53, b"")),
        question(),
        question((53, b"\x03"), (54, bytes([10, 0, 2, 9])), (50, OURS)),
        question((53, b"\x01")).replace(b"\x63\x82\x53\x63", b"none"),
        question((53, b"\x01")) + bytes(2000),
    ],
)
def test_what_is_no_question_for_us(wrong: bytes) -> None:
    assert answer(wrong, OFFER) is None


@given(st.binary(max_size=1600))
def test_any_bytes_at_all(junk: bytes) -> None:
    assert answer(junk, OFFER) is None or junk


@given(st.binary(max_size=300))
def test_any_options_at_all(junk: bytes) -> None:
    reply = answer(question((53, b"\x01"))[:-1] + junk, OFFER)
    assert reply is None or told(reply)["address"] == "10.0.2.15"
