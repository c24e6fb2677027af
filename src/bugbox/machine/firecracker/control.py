# SPDX-License-Identifier: Apache-2.0
"""The connection to a machine's warden: words to it, and what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bugbox.errors import MachineLost

__all__ = ["Control", "Word"]

Word = Literal["reset", "halt", "freeze", "thaw", "quit"]


class Control:
    """One connection. `on_event` gets each thing that the warden tells, `on_lost` its end."""

    def __init__(
        self, socket: Path, on_event: Callable[[dict[str, Any]], None], on_lost: Callable[[], None]
    ) -> None:
        self._socket = socket
        self._on_event = on_event
        self._on_lost = on_lost
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        #: Who waits for which event.
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def connect(self, timeout: float) -> str:
        """Connect; return whether Firecracker is `running`, `frozen` or `off`."""
        try:
            async with asyncio.timeout(timeout):
                reader, self._writer = await asyncio.open_unix_connection(str(self._socket))
                told = json.loads(await reader.readline() or b"{}")
        except (OSError, TimeoutError) as error:
            raise MachineLost("the machine's warden does not answer") from error
        if "is" not in told:
            raise MachineLost("the machine's warden is gone")
        self._task = asyncio.get_running_loop().create_task(self._listen(reader))
        return str(told["is"])

    async def say(self, word: Word) -> None:
        """Tell it to do something."""
        if self._writer is None or self._writer.is_closing():
            raise MachineLost("the machine's warden is gone")
        self._writer.write(json.dumps({"do": word}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def ask(self, word: Word, event: str, timeout: float) -> None:
        """Tell it to do something, and wait until it says that it has; MachineLost when not."""
        done = asyncio.get_running_loop().create_future()
        waiting = (event, done)
        self._waiting.append(waiting)
        try:
            await self.say(word)
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            raise MachineLost(f"the machine's warden did not {word} it") from None
        finally:
            self._waiting.remove(waiting)

    async def aclose(self) -> None:
        """Let go of it; the machine lives on."""
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                told = json.loads(line)
                self._on_event(told)
                for event, done in self._waiting:
                    if event == told.get("event") and not done.done():
                        done.set_result(None)
        for _, done in self._waiting:
            if not done.done():
                done.set_exception(MachineLost("the machine's warden is gone"))
        self._on_lost()
