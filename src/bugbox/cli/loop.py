# SPDX-License-Identifier: Apache-2.0
"""Run asynchronous work from a command: Ctrl-C cancels it and waits, a second one ends at once."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, TypeVar

import anyio

from bugbox.cli.outcome import interrupts

__all__ = ["run_async"]

T = TypeVar("T")


def run_async(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work` to its end; KeyboardInterrupt when it was cancelled by Ctrl-C."""

    async def main() -> T:
        # The event loop's own handler, which cancels this task in a place it can stand.
        cancel: Any = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGTERM, lambda signo, frame: handle(signo, frame))
        pressed = 0

        def handle(signo: int, frame: FrameType | None) -> None:
            nonlocal pressed
            interrupts.note(signo)
            pressed += 1
            if pressed > 1:
                interrupts.leave()
            cancel(signo, frame)

        signal.signal(signal.SIGINT, handle)
        return await work()

    # asyncio brings its handler only where nobody else's is installed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return anyio.run(main)
    finally:
        interrupts.install()
