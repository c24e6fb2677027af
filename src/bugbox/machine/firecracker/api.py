# SPDX-License-Identifier: Apache-2.0
"""Firecracker's API: HTTP over a UNIX socket, one request after the other."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from bugbox.errors import GuestError, MachineLost
from bugbox.machine.firecracker.model import (
    Instance,
    Request,
    SnapshotCreate,
    SnapshotLoad,
    read_instance,
)
from bugbox.machine.firecracker.version import Version, accept
from bugbox.machine.sockets import made_by_vmm

__all__ = ["Api", "ApiError"]

#: Seconds for an answer; it has one thread for all of them.
_SECONDS = 10.0
#: For those that move a machine's memory to or from a disk.
_SLOW_SECONDS = 120.0
_ANSWER_BYTES = 1 << 20
_LOOK_SECONDS = 0.005


class ApiError(GuestError):
    """Firecracker refused: `fault_message` has its own words."""

    def __init__(self, request: str, status: int, fault_message: str) -> None:
        super().__init__(f"Firecracker refused {request}: {fault_message}")
        self.request = request
        self.status = status
        self.fault_message = fault_message


class Api:
    """One process's API. `await ready()` first: it waits for the socket and learns the version."""

    def __init__(self, socket: Path, *, factor: float = 1.0) -> None:
        self.socket = socket
        #: What was asked, in order, for a bundle: "PUT /vsock".
        self.asked: list[str] = []
        self._factor = factor
        self._version: Version | None = None
        #: Stands for the socket that was looked at last; "/": none so far.
        self._fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=f"/proc/self/fd/{self._fd}"),
            base_url="http://firecracker",
            trust_env=False,
            headers={"Accept": "application/json"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._client.aclose()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def version(self) -> Version:
        """The version that `ready` has learnt."""
        if self._version is None:
            raise MachineLost("Firecracker has not answered yet")
        return self._version

    async def ready(self, timeout: float) -> Instance:
        """Wait for the first answer; MachineLost after `timeout`, HostError for one too old."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                instance = await self.instance()
                break
            except MachineLost:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(_LOOK_SECONDS)
        answer = await self._ask("GET", "/version", None, _SECONDS)
        text = answer.get("firecracker_version") if isinstance(answer, dict) else None
        self._version = accept(str(text))
        return instance

    async def instance(self) -> Instance:
        """Ask what it is and whether it runs."""
        return read_instance(await self._ask("GET", "/", None, _SECONDS))

    async def send(self, request: Request) -> None:
        """Send one request; ApiError when it is refused, MachineLost when nobody answers."""
        slow = isinstance(request, (SnapshotCreate, SnapshotLoad))
        body = request.body(self.version)
        await self._ask(request.method, request.path, body, _SLOW_SECONDS if slow else _SECONDS)

    async def _ask(self, method: str, path: str, body: object, seconds: float) -> Any:
        name = f"{method} {path}"
        if method != "GET":
            self.asked.append(name)
        limit = seconds * self._factor
        try:
            with made_by_vmm(self.socket) as there:
                os.dup2(there, self._fd, inheritable=False)
            async with (
                asyncio.timeout(limit),
                self._client.stream(
                    method, path, json=body if method != "GET" else None, timeout=limit
                ) as answer,
            ):
                said = await _body(name, answer)
        except (TimeoutError, httpx2.TimeoutException):
            raise MachineLost(f"Firecracker did not answer {name} within {limit:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            raise MachineLost(f"Firecracker does not answer {name}: {error!r}") from error
        return _read(name, answer.status_code, said)


async def _body(name: str, answer: httpx2.Response) -> bytes:
    """Take no more than an answer may have: whoever broke out of its guest may be speaking.

    As it comes: what is packed could be many times longer.
    """
    said = bytearray()
    async for part in answer.aiter_raw():
        said += part
        if len(said) > _ANSWER_BYTES:
            raise GuestError(f"Firecracker's answer to {name} is too long")
    return bytes(said)


def _read(name: str, status: int, said: bytes) -> Any:
    if status == httpx2.codes.NO_CONTENT:
        return None
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        value = None
    if httpx2.codes.is_success(status) and value is not None:
        return value
    fault = value.get("fault_message") if isinstance(value, dict) else None
    text = said[:200].decode(errors="replace")
    raise ApiError(name, status, str(fault or text or "it did not say why"))
