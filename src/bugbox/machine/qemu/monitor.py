# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor (QMP): the only importer of qemu.qmp.

Every command has a time limit; every failure is one of our errors. QMP takes one client: a second
one gets no greeting until the first has gone, and sees that as a time-out here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError, Runstate

from bugbox.errors import GuestError, MachineLost

__all__ = ["Monitor"]

T = TypeVar("T")


class _Tap(EventListener):
    """Hands each event on at once and keeps none."""

    def __init__(self, handler: Callable[[str, Mapping[str, object]], None]) -> None:
        super().__init__()
        self._handler = handler
        #: When each was told last, seconds on QEMU's own clock.
        self.stamps: dict[str, float] = {}

    async def put(self, event: Message) -> None:
        data = event.get("data", {})
        stamp = event.get("timestamp")
        if isinstance(stamp, dict):
            when = float(stamp.get("seconds", 0)) + float(stamp.get("microseconds", 0)) / 1e6
            self.stamps[str(event["event"])] = when
        self._handler(str(event["event"]), data if isinstance(data, dict) else {})


class Monitor:
    """A conversation with one QEMU."""

    def __init__(
        self,
        path: Path,
        *,
        on_event: Callable[[str, Mapping[str, object]], None],
        on_lost: Callable[[], None],
        timeout: float = 10.0,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self._on_lost = on_lost
        self._client = QMPClient()
        # The library's own listener would keep every event for ever.
        self._client.events.event_filter = lambda event: False
        self._tap = _Tap(on_event)
        self._client.register_listener(self._tap)
        self._watch: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the library takes a command now."""
        return self._client.runstate is Runstate.RUNNING

    def when(self, event: str) -> float:
        """Return when QEMU told of an event last, seconds by its clock; 0: never."""
        return self._tap.stamps.get(event, 0.0)

    async def settled(self) -> None:
        """Wait until a connection that is ending has been told of to `on_lost`."""
        if self._watch is not None and not self.connected:
            await asyncio.wait([self._watch])

    async def connect(self) -> None:
        """Connect and agree on capabilities; MachineLost when that does not work in time."""
        await self._limited("a greeting", self._client.connect(str(self.path)))
        self._watch = asyncio.get_running_loop().create_task(self._watch_loss())

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
    ) -> object:
        """Run a command. GuestError: QEMU refused; MachineLost: it is gone or does not answer."""
        try:
            return await self._limited(
                command, self._client.execute(command, arguments), timeout=timeout
            )
        except ExecuteError as error:
            raise GuestError(f"QEMU refused {command}: {error}") from error

    async def execute_with(self, fd: int, command: str, arguments: Mapping[str, object]) -> object:
        """Run a command that takes an open file, which QEMU gets a descriptor of its own of."""
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as error:
            raise MachineLost("QEMU's monitor has gone") from error
        return await self.execute(command, arguments)

    async def status(self) -> str:
        """Return QEMU's run state: running, paused, shutdown, io-error…"""
        answer = await self.execute("query-status")
        return str(answer.get("status")) if isinstance(answer, dict) else ""

    async def aclose(self) -> None:
        """Let go of the socket; QEMU runs on."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._client.runstate is not Runstate.IDLE:
            # It repeats the error that ended the conversation, which is known by now.
            with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
                async with asyncio.timeout(self.timeout):
                    await self._client.disconnect()

    async def _watch_loss(self) -> None:
        """Wait until the library gives the connection up, then say so."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        await self._disconnect()
        self._watch = None
        self._on_lost()

    async def _limited(self, what: str, work: Awaitable[T], *, timeout: float | None = None) -> T:
        limit = self.timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                return await work
        except ExecuteError:
            raise
        except TimeoutError:
            raise MachineLost(f"QEMU's monitor did not answer {what} within {limit:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise MachineLost("QEMU's monitor has gone") from error
