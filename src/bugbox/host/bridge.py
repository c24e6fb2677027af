# SPDX-License-Identifier: Apache-2.0
"""Use blocking code from async code: the one place where the two colours meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

import anyio
from anyio import to_thread

__all__ = ["held", "in_thread", "shielded"]

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a worker thread; wait for its end even when cancelled."""
    return await to_thread.run_sync(lambda: function(*args, **kwargs))


@asynccontextmanager
async def held(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a blocking context manager in a worker thread; its exit is shielded."""
    value = await to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            raised = (type(error), error, error.__traceback__)
            if not await to_thread.run_sync(lambda: manager.__exit__(*raised)):
                raise
    else:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(lambda: manager.__exit__(None, None, None))


async def shielded(undo: Callable[[], Awaitable[None]]) -> None:
    """Take something back even while we are being cancelled; `undo` must have an end by itself."""
    with anyio.CancelScope(shield=True):
        await undo()
