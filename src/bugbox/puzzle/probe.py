# SPDX-License-Identifier: Apache-2.0
"""Send a probe to a machine from outside, and say what came of it.

What answers is the guest's, and hostile: so much of it is read and no more, for so long and no
longer, and nothing of it is done. A redirection is an answer, not an order.
"""

from __future__ import annotations

import asyncio
import http.client
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, cast

from bugbox.puzzle import dns
from bugbox.puzzle.probe_keys import Probe, address_of
from bugbox.puzzle.text import one_line
from bugbox.puzzle.variants import fill

__all__ = ["Opening", "Outside", "probed"]

#: What is read of an answer.
_LIMIT = 256 << 10
#: Seconds after which somebody who has spoken has said all.
_SILENCE_S = 1.0
#: Seconds between two looks at whether the guest has taken a connection.
_LOOK_S = 0.05


class Opening(Protocol):
    """A port of the guest that can be reached from here, for as long as it is held open."""

    @property
    def address(self) -> tuple[str, int]:
        """Where on this host it is."""

    async def taken(self) -> bool | None:
        """Whether the guest took the connection; None: it has not said so far."""


class Outside(Protocol):
    """What a probe needs of a machine: a way in through its network card."""

    def opening(self, port: int) -> AbstractAsyncContextManager[Opening]:
        """Open a way to a TCP port of the guest; GuestError when there is none."""


async def probed(probe: Probe, outside: Outside, values: Mapping[str, str], limit: float) -> str:
    """Send it and wait `limit` seconds at most; return what is wrong, a sentence, or "".

    ValueError: a variant makes an address of it that is none. GuestError: there is no way in.
    """
    try:
        async with asyncio.timeout(limit):
            if probe.http is not None:
                return await _http(probe, outside, values)
            if probe.dns is not None:
                return await _dns(probe, outside, values)
            return await _tcp(probe, outside, values)
    except TimeoutError:
        if probe.closed:
            return ""
        return f"{_what(probe, values)} does not answer from outside within {limit:g} s"


def _what(probe: Probe, values: Mapping[str, str]) -> str:
    if probe.http is not None:
        return fill(probe.http, values)
    return "the DNS server" if probe.dns is not None else f"port {probe.tcp}"


def _wanted(probe: Probe, values: Mapping[str, str]) -> bytes:
    return fill(probe.contains or "", values).encode()


async def _tcp(probe: Probe, outside: Outside, values: Mapping[str, str]) -> str:
    port = probe.tcp or 0
    async with outside.opening(port) as way:
        try:
            reader, writer = await asyncio.open_connection(*way.address)
        except OSError:
            return "" if probe.closed else f"nothing answers on port {port} from outside"
        try:
            if await _taken(way, reader):
                if probe.closed:
                    return f"port {port} can be reached from outside"
                return await _says(reader, port, _wanted(probe, values))
        finally:
            _hang_up(writer)
    return "" if probe.closed else f"nothing answers on port {port} from outside"


async def _taken(way: Opening, reader: asyncio.StreamReader) -> bool:
    """Wait until the guest has taken or refused the connection; time is the caller's."""
    while True:
        over = reader.at_eof() or reader.exception() is not None
        taken = await way.taken()
        if taken is not None or over:
            return bool(taken)
        await asyncio.sleep(_LOOK_S)


async def _says(reader: asyncio.StreamReader, port: int, wanted: bytes) -> str:
    heard = b""
    while wanted not in heard and len(heard) < _LIMIT:
        try:
            # Who has said something and then falls silent waits for an answer.
            async with asyncio.timeout(_SILENCE_S if heard else None):
                more = await reader.read(4096)
        except OSError:  # a time-out is one, too
            more = b""
        if not more:
            break
        heard += more
    if wanted in heard:
        return ""
    said = f'"{one_line(heard[:80])}"' if heard else "nothing"
    return f'port {port} says {said}, not "{one_line(wanted)}"'


async def _http(probe: Probe, outside: Outside, values: Mapping[str, str]) -> str:
    url = fill(probe.http or "", values)
    host, port, path = address_of(url)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bugbox\r\nAccept: */*\r\n"
    async with outside.opening(port) as way:
        asked = f"{request}Connection: close\r\n\r\n".encode()
        raw = await _conversation(way, asked, _whole)
    if not raw:
        return f"nothing answers on port {port} from outside"
    try:
        status, body = _page(raw)
    except (http.client.HTTPException, ValueError, OSError):
        return f"what answers on port {port} is not HTTP"
    fits = 200 <= status < 400 if probe.status is None else status == probe.status
    if not fits:
        wanted = "" if probe.status is None else f", not {probe.status}"
        return f"{url} answers with status {status}{wanted}"
    if _wanted(probe, values) not in body:
        return f'the page at {url} does not hold "{one_line(_wanted(probe, values))}"'
    return ""


async def _conversation(way: Opening, request: bytes, whole: Callable[[bytes], bool]) -> bytes:
    """Send a request and read what comes: until that is whole, to its end, or to the limit."""
    heard = b""
    writer = None
    try:
        reader, writer = await asyncio.open_connection(*way.address)
        writer.write(request)
        while len(heard) < _LIMIT and (more := await reader.read(_LIMIT - len(heard))):
            heard += more
            if whole(heard):
                break
    except OSError:
        pass  # refused, or broken off: what was heard so far counts
    finally:
        if writer is not None:
            _hang_up(writer)
    return heard


def _whole(heard: bytes) -> bool:
    """Whether an answer says how long it is, and all of it is there: some never hang up."""
    head, end, body = heard.partition(b"\r\n\r\n")
    if not end:
        return False
    first, *lines = head.split(b"\r\n")
    if first.split(b" ")[1:2] in ([b"204"], [b"304"]):  # never with a body
        return True
    for line in lines:
        name, _, value = (part.strip().lower() for part in line.partition(b":"))
        if name == b"content-length" and value.isdigit():
            return len(body) >= int(value[:12])
        if name == b"transfer-encoding" and value.endswith(b"chunked"):
            return body.endswith(b"0\r\n\r\n")
    return False


def _hang_up(writer: asyncio.StreamWriter) -> None:
    # At once: a guest that does not read must not keep us.
    writer.transport.abort()


class _Heard:
    """What http.client takes for a socket: it only ever reads from it."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object, **__: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def _page(raw: bytes) -> tuple[int, bytes]:
    """Return an HTTP answer's status and body; an exception of http.client when it is none."""
    response = http.client.HTTPResponse(cast(Any, _Heard(raw)), method="GET")
    response.begin()
    try:
        body = response.read(_LIMIT)
    except http.client.IncompleteRead as cut:
        body = cut.partial
    return response.status, body


async def _dns(probe: Probe, outside: Outside, values: Mapping[str, str]) -> str:
    name = fill(probe.dns or "", values)
    async with outside.opening(dns.PORT) as way:
        heard = await _conversation(way, dns.framed(dns.ask(name)), dns.whole)
    if not heard:
        return f"nothing answers on port {dns.PORT} from outside"
    try:
        addresses = dns.read(dns.unframed(heard))
    except ValueError:
        return f"what answers on port {dns.PORT} is not DNS"
    if not addresses:
        return f"the DNS server knows no address of {name}"
    wanted = fill(probe.contains or "", values)
    if wanted and wanted not in addresses:
        return f"the DNS server says {name} is {', '.join(addresses[:4])}, not {wanted}"
    return ""
