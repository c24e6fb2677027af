# SPDX-License-Identifier: Apache-2.0
"""Which driver runs a session's machine: a plain table of what we have."""

from __future__ import annotations

from collections.abc import Callable

from bugbox.config import Settings
from bugbox.errors import UserError
from bugbox.machine.driver import Driver
from bugbox.machine.qemu.driver import QemuDriver
from bugbox.paths import Home

__all__ = ["BUILDER", "DRIVERS", "choose"]

#: What builds layers, whatever runs the sessions: build machines write qcow2.
BUILDER = "qemu"


def _firecracker(home: Home, settings: Settings) -> Driver:
    # Loaded by those who use it: its HTTP library costs a keeper memory and time.
    from bugbox.machine.firecracker.driver import FirecrackerDriver

    return FirecrackerDriver(home, settings)


#: By name; `auto` is the first. A driver is made once a process, and probes the host when it must.
DRIVERS: dict[str, Callable[[Home, Settings], Driver]] = {
    "qemu": QemuDriver,
    "firecracker": _firecracker,
}


def choose(home: Home, settings: Settings, wanted: str = "auto") -> Driver:
    """Make the driver that `wanted`, or the settings, name."""
    name = settings.driver if wanted == "auto" else wanted
    if name == "auto":
        name = next(iter(DRIVERS))
    if name not in DRIVERS:
        raise UserError(f"driver {name} is not supported yet", hint=f"use {', '.join(DRIVERS)}")
    return DRIVERS[name](home, settings)
