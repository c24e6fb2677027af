# SPDX-License-Identifier: Apache-2.0
"""End the time of sessions: each machine whose session has no more is paused, and says why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio

from bugbox.errors import BugboxError
from bugbox.session.session import Session

__all__ = ["keep_time"]

log = logging.getLogger(__name__)

_EVERY = 0.5


async def keep_time(sessions: Callable[[], Iterable[Session]]) -> None:
    """Look for ever whose time is over. What is paused by it is never ended."""
    while True:
        await anyio.sleep(_EVERY)
        for session in list(sessions()):
            if session.time_is_up:
                try:
                    await session.expire()
                except (BugboxError, OSError) as error:
                    log.warning(
                        "%s: its time is over, and it was not paused: %s", session.id, error
                    )
