# SPDX-License-Identifier: Apache-2.0
"""How much time a session has, where the host lets a puzzle's limits bind. Pure."""

from __future__ import annotations

from bugbox.config import Settings
from bugbox.session.plan import Plan
from bugbox.session.record import Record

__all__ = ["OVER", "bind", "ends_at", "extended"]

#: Why a machine stands still whose session has no more time.
OVER = "its time is over"


def bind(settings: Settings) -> bool:
    """Whether limits bind on this host; otherwise they inform."""
    return settings.limits == "on"


def ends_at(plan: Plan, record: Record) -> float | None:
    """When the session's time is over, seconds since 1970; None: never."""
    limits = plan.limits
    ends = []
    if limits.duration is not None:
        ends.append(max(record.started + limits.duration, record.until))
    if limits.deadline is not None:
        ends.append(record.started + limits.deadline)
    return min(ends, default=None)


def extended(plan: Plan, record: Record, now: float) -> float | None:
    """Until when a session may go on whose time is over; None: it may not."""
    limits = plan.limits
    if limits.duration is None or limits.extend is None:
        return None
    until = now + limits.extend
    if limits.deadline is not None:
        until = min(until, record.started + limits.deadline)
    return until if until > now else None
