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
    """Look for ever whose time is over; one that takes long keeps no other waiting.

    What is paused by it is never ended.
    """
    busy: set[str] = set()

    async def expire(session: Session) -> None:
        try:
            await session.expire()
        except (BugboxError, OSError) as error:
            log.warning("%s: its time is over, and it was not paused: %s", session.id, error)
        except Exception:  # one session's trouble must not give all others time for ever
            log.exception("%s: its time is over, and it was not paused", session.id)
        finally:
            busy.discard(session.id)

    async with anyio.create_task_group() as group:
        while True:
            await anyio.sleep(_EVERY)
            for session in list(sessions()):
                if session.id not in busy and session.time_is_up:
                    busy.add(session.id)
                    group.start_soon(expire, session)
