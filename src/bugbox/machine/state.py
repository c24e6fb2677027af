# SPDX-License-Identifier: Apache-2.0
"""A machine's life, as a table. Nothing else decides what follows what."""

from __future__ import annotations

from enum import StrEnum

from bugbox.errors import StateError

__all__ = ["TABLE", "State", "advance"]


class State(StrEnum):
    """Where a machine is in its life."""

    CREATED = "created"
    BOOTING = "booting"
    READY = "ready"
    PAUSED = "paused"
    #: The guest asked for a reboot; same disk, same session.
    REBOOTING = "rebooting"
    #: The guest powered itself off; its disk is kept.
    OFF = "off"
    #: The host's disk is full: the VMM stopped the guest rather than lose a write.
    STALLED = "stalled"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


TABLE: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.BOOTING, State.STOPPING, State.FAILED}),
    State.BOOTING: frozenset(
        {State.READY, State.REBOOTING, State.OFF, State.STALLED, State.STOPPING, State.FAILED}
    ),
    State.READY: frozenset(
        {
            State.PAUSED,
            State.REBOOTING,
            State.OFF,
            State.STALLED,
            State.STOPPING,
            State.FAILED,
        }
    ),
    State.PAUSED: frozenset({State.READY, State.STOPPING, State.FAILED}),
    State.REBOOTING: frozenset(
        {State.READY, State.OFF, State.STALLED, State.STOPPING, State.FAILED}
    ),
    State.OFF: frozenset({State.BOOTING, State.STOPPING}),
    State.STALLED: frozenset(
        {State.READY, State.BOOTING, State.REBOOTING, State.STOPPING, State.FAILED}
    ),
    State.FAILED: frozenset({State.BOOTING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
}


def advance(current: State, target: State) -> State:
    """Return `target`; raise StateError when it cannot follow `current`."""
    if target not in TABLE[current]:
        raise StateError(f"a machine that is {current} cannot become {target}")
    return target
