# SPDX-License-Identifier: Apache-2.0
"""The keys of puzzle.yaml of a session: the ways into its machine, and its time."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, model_validator

from bugbox.puzzle.keys import (
    DURATION,
    Count,
    Flag,
    Model,
    between,
    key,
    lasting,
    limited,
    problem,
)
from bugbox.puzzle.quantity import format_duration

__all__ = ["Access", "SessionLimits"]

_TERMINALS = (1, 64)
_TIME = (1, 30 * 86400)
_TIME_WORDS = f"duration, {between(*_TIME, format_duration)}"
_Time = Annotated[float | None, lasting(*_TIME), DURATION]


def _no_gateway(value: bool) -> bool:
    if value:
        text = "true is not supported yet: nothing here serves SSH; bugbox shell is the way in"
        raise problem("not_yet", text)
    return value


class Access(Model):
    """Ways in."""

    ssh: Annotated[Flag, AfterValidator(_no_gateway)] = key(
        "`false`", "SSH at the host. `true` comes with it.", reader="lint", default=False
    )
    console: Flag = key("flag", "Whether `bugbox console` opens.", reader="console", default=True)
    terminals: Annotated[Count, limited(*_TERMINALS)] | None = key(
        between(*_TERMINALS),
        "How many terminals at once; rescue shells are not counted.",
        reader="shell, play",
        default=None,
        shown="no limit",
    )


class SessionLimits(Model):
    """How a session spends its time; limits bind where the host says so."""

    duration: _Time = key(
        _TIME_WORDS,
        'How long it lasts; then its machine is paused. Binds under `serve` or `limits = "on"`, '
        "as all limits of time.",
        reader="session",
        default=None,
    )
    extend: _Time = key(
        _TIME_WORDS, "How much more each `resume` then gives.", reader="session", default=None
    )
    deadline: _Time = key(
        _TIME_WORDS,
        "After that long from its start there is no more.",
        reader="session",
        default=None,
    )
    idle: _Time = key(
        _TIME_WORDS,
        "How long it may be left alone until it is paused; the host's own time, if that is "
        "shorter.",
        reader="session",
        default=None,
    )
    pausable: Flag = key(
        "flag",
        "Whether it may be paused: `false` where something must go on while nobody looks.",
        reader="session",
        default=True,
    )

    @model_validator(mode="after")
    def _go_together(self) -> SessionLimits:
        if self.extend is not None and self.duration is None:
            raise problem("expected", "duration beside extend")
        if None not in (self.deadline, self.duration) and self.deadline < self.duration:  # type: ignore[operator]
            raise problem("expected", "a deadline that is not before duration is over")
        if not self.pausable and {self.duration, self.deadline, self.idle} != {None}:
            raise problem("expected", "no duration, deadline or idle beside pausable: false")
        return self
