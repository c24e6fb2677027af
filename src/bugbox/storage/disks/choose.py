# SPDX-License-Identifier: Apache-2.0
"""Which way a session's disk is made: a plain table of what we have."""

from __future__ import annotations

from pathlib import Path

from bugbox.errors import HostError, UserError
from bugbox.storage.disks.copy import Copy, reflinks
from bugbox.storage.disks.layout import Strategy
from bugbox.storage.disks.overlay import Overlay
from bugbox.storage.disks.qcow2 import Qcow2
from bugbox.storage.disks.snapshot import Snapshot

__all__ = ["STRATEGIES", "by_name", "choose"]

STRATEGIES: dict[str, Strategy] = {
    each.name: each for each in (Qcow2(), Snapshot(), Copy(), Overlay())
}


def by_name(name: str) -> Strategy:
    """Return the strategy called `name`."""
    if name not in STRATEGIES:
        raise UserError(f"no way to make a disk is called {name}", hint=", ".join(STRATEGIES))
    return STRATEGIES[name]


def choose(wanted: str, *, base: Path, folder: Path, raw: bool) -> Strategy:
    """Return the strategy that is wanted and can be had; HostError says why it cannot.

    `raw`: the VMM reads raw files and block devices only. `auto` is qcow2 where that is read;
    else a reflink, a snapshot, or the overlay, the first that this host has.
    """
    if wanted != "auto":
        found = by_name(wanted)
        if raw and not found.raw:
            raise UserError(
                f"this driver does not read {wanted}",
                hint=f"use {', '.join(name for name, each in STRATEGIES.items() if each.raw)}",
            )
        found.require(folder)
        return found
    if not raw:
        return STRATEGIES["qcow2"]
    if reflinks(base, folder):
        return STRATEGIES["copy"]
    try:
        STRATEGIES["snapshot"].require(folder)
        return STRATEGIES["snapshot"]
    except HostError:
        return STRATEGIES["overlay"]
