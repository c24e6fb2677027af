# SPDX-License-Identifier: Apache-2.0
"""Check without being asked, where a puzzle wants that: while somebody works in the machine.

Only the news that it is solved is told. What fails meanwhile is nobody's try, so it is neither told
nor counted; and a machine that nobody uses is left alone, and comes to rest.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from math import inf

import anyio

from bugbox.errors import BugboxError
from bugbox.machine.state import State
from bugbox.puzzle.manifest import CheckPolicy
from bugbox.session.attempt import Attempt

__all__ = ["check_by_itself"]

log = logging.getLogger(__name__)

#: Seconds between two looks for whom it is time.
_EVERY = 0.5
#: Seconds between two checks of one machine, at least.
_APART = 5.0
#: So long after somebody did something its effects are still looked for.
_AFTER = 20.0


async def check_by_itself(attempts: Callable[[], Iterable[Attempt]]) -> None:
    """Look after all of them for ever; one that takes long keeps no other waiting."""
    begun: dict[str, float] = {}
    busy: set[str] = set()

    async def check(attempt: Attempt) -> None:
        try:
            await attempt.check(by_itself=True)
        except (BugboxError, OSError) as error:
            log.info("%s: not checked by itself: %s", attempt.session.id, error)
        except Exception:  # one machine's trouble must not end the checks of all others
            log.exception("%s: not checked by itself", attempt.session.id)
        finally:
            busy.discard(attempt.session.id)

    async with anyio.create_task_group() as group:
        while True:
            await anyio.sleep(_EVERY)
            present = list(attempts())
            for gone in begun.keys() - {attempt.session.id for attempt in present}:
                del begun[gone]
            for attempt in present:
                id, now = attempt.session.id, time.monotonic()
                pace = max(_APART, _policy(attempt).min_interval)
                if id not in busy and now - begun.get(id, -inf) >= pace and _wanted(attempt, now):
                    begun[id] = now
                    busy.add(id)
                    group.start_soon(check, attempt)


def _policy(attempt: Attempt) -> CheckPolicy:
    puzzle = attempt.session.plan.puzzle
    return puzzle.manifest.check_policy if puzzle else CheckPolicy()


def _wanted(attempt: Attempt, now: float) -> bool:
    session, policy = attempt.session, _policy(attempt)
    return (
        policy.trigger == "auto"
        and not session.record.solved_after
        and session.state == State.READY
        and now - session.used < _AFTER + policy.min_interval
    )
