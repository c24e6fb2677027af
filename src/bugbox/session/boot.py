# SPDX-License-Identifier: Apache-2.0
"""What is known of a session's last boot, collected from the machine, systemd in it, and the host.

Plain values: `bugbox.boottime` makes a report of them, in the process of whoever asked.
"""

from __future__ import annotations

import os
import time
from typing import Any

from bugbox.host.bridge import in_thread
from bugbox.paths import SessionPaths
from bugbox.session.logs import tail
from bugbox.session.record import Record
from bugbox.session.session import Session

__all__ = ["SCRIPT", "boot_facts", "host_clock"]

_LIMIT = 4 << 20
_PARTS = ("uptime", "dmesg", "systemd")
_MANAGER = "UserspaceTimestampMonotonic,FinishTimestampMonotonic"
_UNIT = (
    "Id,ActiveState,After,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
    ",InactiveEnterTimestampMonotonic"
)
#: Injected: the shell and dmesg are ours. The first line is the clock, before anything takes time.
SCRIPT = f"""\
read -r up _ </proc/uptime
echo @uptime; echo "$up"
echo @dmesg; dmesg
echo @systemd
systemctl show --no-pager --property={_MANAGER}
echo
systemctl show --no-pager --property={_UNIT} '*'
"""
#: The host's stages of a start, in order. The first two are over when the VMM is started.
_BEFORE_VMM = ("find", "disk")
_STAGES = ("vmm", "kernel", "systemd", "scripts", "ready", "login")


async def boot_facts(session: Session, factor: float) -> dict[str, Any]:
    """Ask the machine; it must answer. StateError, MachineLost, GuestError as for a command."""
    lifeline = await session.lifeline()
    asked = time.clock_gettime(time.CLOCK_BOOTTIME)
    result = await lifeline.script(
        SCRIPT.encode(), "boot-report", timeout=30 * factor, limit=_LIMIT
    )
    answered = time.clock_gettime(time.CLOCK_BOOTTIME)
    parts = _split(result.stdout.decode(errors="replace"))
    record = session.record
    uptime = _number(parts["uptime"])
    host = None
    fresh = record.boots == 1 and record.pid_started and not record.template
    if uptime is not None and fresh:
        # Where the guest's clock stood on the host's when the script read it: soon after we asked.
        host = host_clock(record, uptime, min(asked + 0.05, answered))
    return {
        "id": session.id,
        "title": record.title or session.id,
        "driver": record.driver,
        "clone": bool(record.template),
        "dmesg": parts["dmesg"],
        "systemd": parts["systemd"],
        "console": await in_thread(_console, session.ledger.paths),
        "milestones": {name: ns / 1e9 for name, ns in lifeline.milestones.items()},
        "timings_ms": record.timings_ms,
        "host": host,
    }


def host_clock(record: Record, uptime: float, now: float) -> dict[str, Any]:
    """Return the host's stages on the guest's clock: `started`, `ready`, `stages`.

    `now` is the host's clock when the guest's showed `uptime`; both count from a boot. A machine
    that was paused in between has stood still, and its start cannot be told this way: then the
    kernel's first milestone would lie before the VMM's start, which the caller sees.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    vmm = record.pid_started / ticks - (now - uptime)
    took = {name: ms / 1000 for name, ms in record.timings_ms.items()}
    stages: list[tuple[str, float, float]] = []
    at = vmm - sum(took.get(name, 0.0) for name in _BEFORE_VMM)
    started = at
    for name in (*_BEFORE_VMM, *_STAGES):
        if name in took:
            stages.append((name, at, at + took[name]))
            at += took[name]
    return {"started": started, "ready": at, "stages": stages}


def _split(text: str) -> dict[str, str]:
    found = dict.fromkeys(_PARTS, "")
    part = ""
    for line in text.splitlines(keepends=True):
        if line.startswith("@") and line[1:].strip() in found:
            part = line[1:].strip()
        elif part:
            found[part] += line
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _console(paths: SessionPaths) -> str:
    return tail(paths.console).decode(errors="replace")
