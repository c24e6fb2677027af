# SPDX-License-Identifier: Apache-2.0
"""Probes from outside: what they take for an answer, and what a hostile guest cannot do to them."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_puzzle_check import FakeGuest, Result

from bugbox.errors import GuestError, MachineLost
from bugbox.puzzle import dns
from bugbox.puzzle.check import NO_CARD, run_checks
from bugbox.puzzle.definition import load
from bugbox.puzzle.lint import lint
from bugbox.puzzle.probe import Opening, probed
from bugbox.puzzle.probe_keys import Probe, address_of

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Way:
    """A port of this host that stands for the guest's."""

    address: tuple[str, int]
    said: bool | None = True

    async def taken(self) -> bool | None:
        return self.said


class Here:
    """Every port of the guest is one of this host's; what was opened is written down."""

    def __init__(self, port: int, said: bool | None = True) -> None:
        self.port, self.said = port, said
        self.opened: list[int] = []
        self.open_now = 0

    @contextlib.asynccontextmanager
    async def opening(self, port: int) -> AsyncIterator[Opening]:
        self.opened.append(port)
        self.open_now += 1
        try:
            yield Way(("127.0.0.1", self.port), self.said)
        finally:
            self.open_now -= 1


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[int]:
    """Serve on a port of this host; every connection has ended afterwards."""
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.ensure_future(talk(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
        # Who was connected and not seen yet is seen now.
        await asyncio.sleep(0.01)
        await asyncio.gather(*talks)


def ask(
    probe: dict[str, object],
    serve: Serve | None = None,
    *,
    limit: float = 20.0,
    said: bool | None = True,
    values: Mapping[str, str] | None = None,
) -> str:
    """Send a probe to a server of the test's (or to a closed port); return what is wrong."""

    async def main() -> str:
        if serve is None:
            return await probed(Probe(**probe), Here(closed_port(), said), values or {}, limit)
        async with served(serve) as port:
            here = Here(port, said)
            wrong = await probed(Probe(**probe), here, values or {}, limit)
            assert here.open_now == 0
            return wrong

    return asyncio.run(asyncio.wait_for(main(), 60))


def says(*parts: bytes, hang_up: bool = True) -> Serve:
    """Return a server that reads a request's first line and answers."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                await writer.drain()
            if not hang_up:
                await reader.read()
        writer.close()

    return serve


def greets(text: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    return serve


PAGE = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nSoup of the day\n"
MENU: dict[str, object] = {"http": "http://shop.example:8080/menu"}


def test_a_page_that_is_there() -> None:
    assert ask(MENU, says(PAGE)) == ""
    assert ask({**MENU, "contains": "Soup", "status": 200}, says(PAGE)) == ""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nSoup\r\n0\r\n\r\n"
    assert ask({**MENU, "contains": "Soup"}, says(chunked)) == ""


def test_a_page_is_asked_for_as_by_a_browser_that_was_told_the_name() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(PAGE)
        writer.close()

    assert (
        ask({"http": "http://{{SHOP}}:8080/menu?day=1"}, serve, values={"SHOP": "soup.lan"}) == ""
    )
    head = heard[0].split(b"\r\n")
    assert head[0] == b"GET /menu?day=1 HTTP/1.1" and b"Host: soup.lan:8080" in head


@pytest.mark.parametrize(
    "whole",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nSoup",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nSoup\r\n0\r\n\r\n",
        b"HTTP/1.1 204 Empty\r\nX: Soup\r\n\r\n",
    ],
)
def test_a_server_that_never_hangs_up_is_not_waited_for(whole: bytes) -> None:
    begun = time.monotonic()
    more = {} if b"204" in whole else {"contains": "Soup"}
    assert ask({**MENU, **more}, says(whole, hang_up=False), limit=30) == ""
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("more", "answer", "wrong"),
    [
        ({}, b"HTTP/1.0 502 Bad\r\n\r\n", "answers with status 502"),
        ({"status": 200}, b"HTTP/1.0 302 Away\r\nLocation: /\r\n\r\n", "with status 302, not 200"),
        ({"contains": "Soup"}, b"HTTP/1.0 200 OK\r\n\r\nbread", 'does not hold "Soup"'),
        ({}, b"SSH-2.0-OpenSSH_9.2\r\n", "what answers on port 8080 is not HTTP"),
        ({}, b"", "nothing answers on port 8080 from outside"),
        ({}, b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", "is not HTTP"),
        ({}, b"HTTP/1.0 200 OK\r\nContent-Length: x\r\n\r\n", ""),
    ],
)
def test_what_is_wrong_with_a_page(more: dict[str, object], answer: bytes, wrong: str) -> None:
    told = ask({**MENU, **more}, says(answer))
    assert wrong in told and bool(told) == bool(wrong)


def test_a_redirection_is_an_answer_and_not_an_order() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n")
        writer.close()

    assert ask(MENU, serve) == ""
    assert len(asked) == 1


def test_a_page_without_end_is_read_to_a_limit_only() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()

    assert "does not hold" in ask({**MENU, "contains": "Soup"}, serve)


def test_a_drip_ends_with_the_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"H")
                await writer.drain()
                await asyncio.sleep(0.05)

    told = ask(MENU, serve, limit=0.5)
    assert told == "http://shop.example:8080/menu does not answer from outside within 0.5 s"


def test_an_escape_in_an_answer_reaches_no_terminal() -> None:
    told = ask({"tcp": 22, "contains": "SSH-2.0-"}, greets(b"\x1b[2J" * 9))
    assert told.startswith('port 22 says "\\x1b[2J') and "\x1b" not in told


def test_a_port() -> None:
    assert ask({"tcp": 22, "contains": "SSH-2.0-"}, greets(b"SSH-2.0-OpenSSH_9.2\r\n")) == ""
    assert ask({"tcp": 22}, greets(b"")) == ""
    assert ask({"tcp": 22}) == "nothing answers on port 22 from outside"
    # Somebody between takes every connection, and only then asks the guest.
    assert ask({"tcp": 22}, greets(b""), said=False) == "nothing answers on port 22 from outside"
    assert ask({"tcp": 22}, says(b""), said=None, limit=0.5) != ""


def test_a_port_that_must_be_closed() -> None:
    shut: dict[str, object] = {"tcp": 5432, "closed": True}
    assert ask(shut) == ""
    assert ask(shut, greets(b""), said=False) == ""
    assert ask(shut, greets(b"")) == "port 5432 can be reached from outside"
    # Dropped packets: nobody ever says anything.
    assert ask(shut, greets(b""), said=None, limit=0.3) == ""


# DNS.


def ask_dns(
    answer: Callable[[bytes], bytes] | None, *, contains: str = "", limit: float = 20.0
) -> str:
    """Ask a server that makes its answer, length and all, of the question."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        assert answer is not None
        writer.write(answer(await reader.readexactly(size)))
        await reader.read()  # it waits for the next question

    probe = {"dns": "printer.lan", "contains": contains or None}
    return ask(probe, serve if answer else None, limit=limit)


def reply(question: bytes, *addresses: str, rcode: int = 0) -> bytes:
    head = question[:2] + struct.pack(">5H", 0x8180 | rcode, 1, len(addresses), 0, 0)
    records = [
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
        for address in addresses
    ]
    return head + question[12:] + b"".join(records)


def test_a_name_that_is_known() -> None:
    def known(asked: bytes) -> bytes:
        return dns.framed(reply(asked, "10.0.0.7", "10.0.0.9"))

    assert ask_dns(known) == ""
    assert ask_dns(known, contains="10.0.0.9") == ""
    told = ask_dns(known, contains="10.0.0.1")
    assert told == "the DNS server says printer.lan is 10.0.0.7, 10.0.0.9, not 10.0.0.1"


def test_a_name_that_is_not() -> None:
    told = ask_dns(lambda asked: dns.framed(reply(asked, rcode=3)))
    assert told == "the DNS server knows no address of printer.lan"
    nonsense = "what answers on port 53 is not DNS"
    assert ask_dns(lambda asked: b"HTTP/1.0 400 Bad Request\r\n\r\n", limit=0.5) != ""
    assert ask_dns(lambda asked: dns.framed(asked[:2] + b"rubbish")) == nonsense
    assert ask_dns(lambda asked: dns.framed(b"")) == nonsense
    assert ask_dns(None) == "nothing answers on port 53 from outside"
    assert "within 0.3 s" in ask_dns(lambda asked: b"", limit=0.3)


def test_a_question_as_it_is_on_the_wire() -> None:
    assert dns.ask("a.bc.", 0x1234) == (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01"
    )


@given(st.binary(max_size=600))
def test_any_bytes_are_addresses_or_no_dns(packet: bytes) -> None:
    """A pointer at itself, a length beyond the end, a count of 65535: all of it ends."""
    for each in (packet, packet[:2] + b"\x81\x80\xff\xff\xff\xff\0\0\0\0" + packet[2:]):
        try:
            found = dns.read(each)
        except ValueError:
            continue
        assert len(found) <= 32


# In a puzzle.

MANIFEST = """\
schema: 1
name: demo
title: A title
summary: A summary.
variants: {SHOP: {pick: [soup.lan]}}
checks:
  - {id: one, title: It is one, run: checks/one.sh}
  - id: page
    title: The page is there
    where: outside
    timeout: 2s
    probe: {http: "http://{{SHOP}}/menu", contains: Soup}
"""


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "checks").mkdir(parents=True)
    (folder / "puzzle.yaml").write_text(MANIFEST)
    (folder / "description.md").write_text("It is broken.\n")
    (folder / "checks/one.sh").write_text("#!/bin/sh\nfail no\n")
    (folder / "checks/one.sh").chmod(0o755)
    return folder


def run(demo: Path, outside: object, *, alive: bool = True) -> list[tuple[str, str]]:
    guest = FakeGuest({"one.sh": Result()}, alive=alive)
    report = asyncio.run(
        run_checks(load(demo), guest, {"PUZZLE_SHOP": "soup.lan"}, outside=outside)  # type: ignore[arg-type]
    )
    return [(outcome.status, outcome.message) for outcome in report.checks]


class Broken:
    def __init__(self, error: Exception) -> None:
        self.error = error

    @contextlib.asynccontextmanager
    async def opening(self, port: int) -> AsyncIterator[Opening]:
        raise self.error
        yield


def test_a_probe_is_a_check_like_another(demo: Path) -> None:
    passed, failed = run(demo, Here(closed_port()))
    assert passed == ("passed", "")
    assert failed == ("failed", "nothing answers on port 80 from outside")


def test_a_machine_without_a_card_leaves_it_open(demo: Path) -> None:
    assert run(demo, None)[1] == ("skipped", NO_CARD)


def test_a_probe_that_cannot_be_sent_says_nothing_about_the_learner(demo: Path) -> None:
    status, message = run(demo, Broken(GuestError("QEMU forwards no port 80")))[1]
    assert (status, message[:27]) == ("broken", "the probe could not be sent")


@pytest.mark.parametrize("outside", [Broken(MachineLost("gone")), Here(closed_port())])
def test_a_dead_machine_is_not_solved_and_not_closed(demo: Path, outside: object) -> None:
    """What nobody answers is no proof that a port is shut: is there anybody at all?"""
    text = (demo / "puzzle.yaml").read_text()
    shut = text.replace('{http: "http://{{SHOP}}/menu", contains: Soup}', "{tcp: 80, closed: true}")
    (demo / "puzzle.yaml").write_text(shut)
    assert run(demo, outside, alive=False)[1][0] == "failed"
    if isinstance(outside, Here):
        assert run(demo, outside)[1] == ("passed", "")


def test_a_name_that_is_no_variant_is_found_by_lint(demo: Path) -> None:
    text = (demo / "puzzle.yaml").read_text()
    (demo / "puzzle.yaml").write_text(text.replace("contains: Soup", 'contains: "{{SUPPER}}"'))
    found = [each.message for each in lint(demo) if each.level == "error"]
    assert found == ["{{SUPPER}} in the probe of page is not one of the variants"]


def test_a_variant_that_makes_no_address_breaks_the_check(demo: Path) -> None:
    text = (demo / "puzzle.yaml").read_text()
    (demo / "puzzle.yaml").write_text(text.replace("[soup.lan]", '["a b"]'))
    puzzle = load(demo)
    check = replace(puzzle.checks[1])
    assert check.probe is not None
    with pytest.raises(ValueError):
        asyncio.run(probed(check.probe, Here(1), {"SHOP": "a b"}, 1.0))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://a", ("a", 80, "/")),
        ("http://a:81/b?c=d", ("a:81", 81, "/b?c=d")),
        ("http://192.0.2.1:8080/", ("192.0.2.1:8080", 8080, "/")),
    ],
)
def test_addresses(url: str, expected: tuple[str, int, str]) -> None:
    assert address_of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://a/", "file:///etc/passwd", "http:///x", "http://a:0/", "http://a:65536/",
        "http://u:p@a/", "http://a/ HTTP/1.1\r\nX: y", "http://a/#b", "http://a b/", "gopher://a",
        "http://ä/", "http://a\r\n/", "http://-/",
    ],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    """Nothing that a URL says can add a line to the request, or send it elsewhere."""
    with pytest.raises(ValueError):
        address_of(url)
