# SPDX-License-Identifier: Apache-2.0
"""A copy of a running machine: QEMU's live migration into a file, and a switch of its disks.

    it stands still  for some milliseconds, while QEMU begins to note what is written
    it runs          all of its memory goes into the file, once
    it stands still  the disks are switched to empty images over those that are copied, what it
                     wrote meanwhile and the devices' state follow, and it runs on

Emulation (QEMU 7.2) makes the order what it is. When QEMU collects and clears its notes of what was
written to, it does not tell the CPU, which goes on writing to pages it has at hand without a note:
such a page is lost, and the copy of a busy guest panics, one in eight that we tried. So notes are
collected only while the guest stands still: once when they begin (which also empties what the CPU
has at hand), and at the end. A `downtime-limit` of 0 keeps QEMU from collecting in between.

The disks are switched while QEMU waits for us between the two (`pause-before-switchover`), so that
memory and disks are of the same moment. QEMU opens nothing by name: it gets descriptors.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable

import anyio

from bugbox.errors import GuestError, OutOfResources
from bugbox.host.bridge import in_thread
from bugbox.machine.qemu.images import Overlay
from bugbox.machine.qemu.migration import WHOLE_WITH_A_PAUSE
from bugbox.machine.qemu.monitor import Monitor
from bugbox.machine.template import Capture

__all__ = ["copy", "end_copying", "run_on", "take_over"]

#: Seconds that a copy may take, and its end when it is given up.
_LIMIT = 30.0
_CANCEL_LIMIT = 10.0
#: Bytes a second: more than any memory does.
_FAST = 1 << 36
#: What a full disk does not take.
_PROBE = bytes(1 << 20)
_UNDER_WAY = ("setup", "active", "pre-switchover", "device", "cancelling", "wait-unplug")

#: Waits until QEMU's word for how far the copy is differs from the one given, and returns it.
Progress = Callable[[str], Awaitable[str]]


async def copy(
    monitor: Monitor, pid: int, wanted: Capture, progress: Progress, factor: float
) -> None:
    """Do what the module says; on failure nothing is left of it but, perhaps, the switch."""
    added: list[Overlay] = []
    try:
        for drive, path in wanted.overlays.items():
            added.append(await Overlay.add(monitor, pid, drive, path))
        with anyio.fail_after(_LIMIT * factor):
            wanted.pause_ms = await _begin(monitor, wanted.state, progress)
            await _until_all_was_sent(progress)
            await monitor.execute("transaction", {"actions": [each.switch for each in added]})
            wanted.switched = True
            await monitor.execute("migrate-continue", {"state": "pre-switchover"})
            word = "pre-switchover"
            while (word := await progress(word)) != "completed":
                _still(word)
        await _run_on_at_once(monitor, factor)
    except TimeoutError:
        raise GuestError(f"QEMU did not copy the machine within {_LIMIT * factor:g} s") from None
    except GuestError:
        await _no_space(wanted.state)
        raise
    finally:
        if not wanted.switched:
            with anyio.CancelScope(shield=True):
                await end_copying(monitor, factor)
                for each in added:
                    await each.remove(monitor)
    wanted.pause_ms += _pause_ms(monitor)


async def end_copying(monitor: Monitor, factor: float) -> None:
    """End a copy under way, whoever began it, and let a guest run that stands still for it."""
    if await _how_far(monitor) not in _UNDER_WAY:
        return
    await monitor.execute("migrate_cancel")
    deadline = anyio.current_time() + _CANCEL_LIMIT * factor
    while await _how_far(monitor) in _UNDER_WAY:
        if anyio.current_time() > deadline:
            raise GuestError("QEMU does not end its copy of the machine")
        await anyio.sleep(0.01)
    if await monitor.status() == "paused":
        await monitor.execute("cont")


async def take_over(monitor: Monitor, factor: float) -> bool:
    """Let a machine run whose keeper died while it copied it, and do nothing to any other.

    Whether it had been copied at all, so that its state may be another by now.
    """
    told = await monitor.execute("query-migrate-capabilities")
    ours = {"capability": "pause-before-switchover", "state": True}
    if not isinstance(told, list) or ours not in told:
        return False
    await end_copying(monitor, factor)
    await run_on(monitor, factor)
    return True


async def run_on(monitor: Monitor, factor: float) -> None:
    """Let a guest run that a copy has stopped; QEMU takes a moment after the copy's end."""
    deadline = anyio.current_time() + _CANCEL_LIMIT * factor
    while (status := await monitor.status()) == "finish-migrate":
        if anyio.current_time() > deadline:
            raise GuestError("QEMU does not end its copy of the machine")
        await anyio.sleep(0.001)
    if status == "postmigrate":
        await monitor.execute("cont")


async def _run_on_at_once(monitor: Monitor, factor: float) -> None:
    """Do as `run_on` does, without a question first: on a busy host each answer takes long."""
    try:
        await monitor.execute("cont")
    except GuestError:  # not at the end of it yet
        await run_on(monitor, factor)


async def _begin(monitor: Monitor, state: int, progress: Progress) -> float:
    """Begin the copy; return for how long (ms) the guest stood still."""
    await monitor.execute("migrate-set-capabilities", {"capabilities": WHOLE_WITH_A_PAUSE})
    values = {"max-bandwidth": _FAST, "downtime-limit": 0}
    await monitor.execute("migrate-set-parameters", values)
    await monitor.execute_with(state, "getfd", {"fdname": "capture"})
    await monitor.execute("stop")
    try:
        await monitor.execute("migrate", {"uri": "fd:capture"})
        word = ""
        while (word := await progress(word)) in ("", "setup"):
            pass
        _still(word)
    finally:
        with anyio.CancelScope(shield=True):
            await monitor.execute("cont")
    return _pause_ms(monitor)


async def _until_all_was_sent(progress: Progress) -> None:
    """Wait until the guest stands still for what it wrote meanwhile."""
    word = await progress("setup")
    while word != "pre-switchover":
        _still(word)
        word = await progress(word)


def _still(word: str) -> None:
    if word not in _UNDER_WAY:
        raise GuestError(f"QEMU did not copy the machine: {word}")


async def _no_space(state: int) -> None:
    """Raise OutOfResources when the file takes no more: QEMU only says that it failed."""
    try:
        await in_thread(os.write, state, _PROBE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutOfResources("no space is left for a copy of the machine") from error


async def _how_far(monitor: Monitor) -> str:
    told = await monitor.execute("query-migrate")
    return str(told.get("status", "")) if isinstance(told, dict) else ""


def _pause_ms(monitor: Monitor) -> float:
    return max(0.0, 1000 * (monitor.when("RESUME") - monitor.when("STOP")))
