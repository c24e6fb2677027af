# SPDX-License-Identifier: Apache-2.0
"""A build machine that stands by, so that a build need not wait for one.

    filled in a thread of its own  booted, gone through a build that makes nothing (an emulated
                                   machine does all of it faster the second time), its scratch disk
                                   made anew, paused, let go of
    claimed by one build           taken up, fresh entropy, the right time; gone afterwards

No puzzle's files were ever in it, and no build follows another. Its record says `making` for as
long as we hold its lock: of a process that dies, the reaper takes it back. Whatever goes wrong with
it is a line in the log, and the build boots a machine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from bugbox.errors import BugboxError, MachineLost
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.state import State
from bugbox.puzzle.build import rehearse
from bugbox.session.build_machine import Parts, boot, open_record, while_it_runs
from bugbox.session.description import from_json
from bugbox.session.drivers import BUILDER, choose
from bugbox.session.identity import refresh
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger

__all__ = ["Resident"]

log = logging.getLogger(__name__)

#: Seconds that one may take to be there again.
_WAKE_TIMEOUT = 20.0
#: Seconds between two looks whether it is made.
_LOOK = 0.05

#: What a machine was made of: base, kernel, initramfs, size of its disks.
_Key = tuple[str, Path, Path, int]


@dataclass(frozen=True, slots=True)
class _Standby:
    ledger: Ledger

    @property
    def disk(self) -> Path:
        return _disk_of(self.ledger)


class Resident:
    """At most one build machine that stands by, of this process. Close it at the end."""

    def __init__(self) -> None:
        #: The one that stands by, is being made, or was given away.
        self._making: _Making | None = None
        self._closed = False

    @property
    def stands_by(self) -> bool:
        """Whether there is one; waits for one that is being made."""
        making = self._making
        if making is None:
            return False
        making.join()
        return making.made is not None

    def fill(self, parts: Parts, disk_bytes: int) -> None:
        """See to one in the background, for builds with these parts and disks of that size."""
        making = self._making
        if self._closed or (making is not None and making.serves(_key(parts, disk_bytes))):
            return
        self._drop()
        making = _Making(parts, disk_bytes)
        making.start()
        self._making = making

    @asynccontextmanager
    async def claimed(
        self, parts: Parts, disk_bytes: int, to: Path
    ) -> AsyncIterator[Machine | None]:
        """Give the machine that stands by to one build, ready for it; None: there is none.

        One that is being made is waited for when it is such a one; that can be cancelled.
        Afterwards it is gone, and its puzzle's disk is at `to` when all went well.
        """
        async with AsyncExitStack() as undo:
            making = self._making
            standby = await making.take(_key(parts, disk_bytes)) if making is not None else None
            if standby is not None:
                undo.push_async_callback(shielded, lambda: in_thread(give_back, standby.ledger))
            machine = await self._woken(standby, parts, undo) if standby is not None else None
            yield machine
            if machine is not None and standby is not None:
                await machine.stop(0.0)
                await in_thread(standby.disk.rename, to)

    def close(self) -> None:
        """End it, or the making of it."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.end()

    async def _woken(self, standby: _Standby, parts: Parts, undo: AsyncExitStack) -> Machine | None:
        record = standby.ledger.record
        try:
            async with asyncio.timeout(_WAKE_TIMEOUT * parts.settings.timeout_factor):
                if record.process is None:
                    raise MachineLost("it has no process")
                machine = await parts.driver.adopt(from_json(record.spec), record.process)
                undo.push_async_callback(shielded, lambda: machine.stop(0.0))
                await machine.resume()
                await machine.wait_lifeline()
                await refresh(machine.lifeline, 0)
                return machine
        except (BugboxError, OSError) as error:  # TimeoutError is one
            log.warning("the build machine that stood by: %s", error)
            return None


class _Making(threading.Thread):
    """One that is made in a thread of its own, kept until somebody takes it."""

    def __init__(self, parts: Parts, disk_bytes: int) -> None:
        super().__init__(name="build machine")
        self.parts = parts
        self.disk_bytes = disk_bytes
        self.key = _key(parts, disk_bytes)
        #: What was made, until it is taken.
        self.made: _Standby | None = None
        #: Whoever takes it, ends it or lets its loop end has this.
        self._lock = threading.Lock()
        self._unwanted = False
        self._cancel: Callable[[], object] | None = None

    def serves(self, key: _Key) -> bool:
        """Whether a build with that key will have it, if all goes well."""
        return key == self.key and (self.is_alive() or self.made is not None)

    async def take(self, key: _Key) -> _Standby | None:
        """Give it away, once, when it is made; None at once when it is for other builds."""
        if key != self.key:
            return None
        while self.is_alive():  # noqa: ASYNC110 (another thread, with a loop of its own)
            await anyio.sleep(_LOOK)
        return self._taken()

    def end(self) -> None:
        """End it, or the making of it."""
        with self._lock:
            self._unwanted = True
            if self._cancel is not None:
                self._cancel()
        self.join()
        made = self._taken()
        if made is not None:
            give_back(made.ledger)

    def _taken(self) -> _Standby | None:
        with self._lock:
            made, self.made = self.made, None
        return made

    # In the thread.

    def run(self) -> None:
        """Make it; what goes wrong is a line in the log."""
        try:
            anyio.run(self._cancellable)
        except (BugboxError, OSError) as error:
            log.warning("no build machine stands by: %s", error)

    async def _cancellable(self) -> None:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            with self._lock:
                self._cancel = lambda: loop.call_soon_threadsafe(scope.cancel)
                unwanted = self._unwanted
            try:
                if not unwanted:
                    self.made = await _stand_by(self.parts, self.disk_bytes)
            finally:
                with self._lock:
                    self._cancel = None


async def _stand_by(parts: Parts, disk_bytes: int) -> _Standby:
    # What a driver keeps belongs to one event loop.
    parts = dataclasses.replace(parts, driver=choose(parts.home, parts.settings, BUILDER))
    async with AsyncExitStack() as undo:
        ledger = await in_thread(open_record, parts, "standby", "A build machine that stands by")
        undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
        machine = await boot(parts, ledger, _disk_of(ledger), disk_bytes)
        undo.push_async_callback(shielded, lambda: machine.stop(0.0))
        await machine.wait_lifeline()
        factor = parts.settings.timeout_factor
        await while_it_runs(machine, rehearse(machine.lifeline, factor))
        await machine.reached(State.READY)
        await machine.pause()
        await machine.release()
        undo.pop_all()
    return _Standby(ledger)


def _key(parts: Parts, disk_bytes: int) -> _Key:
    return (parts.image.digest, parts.kernel.vmlinux, parts.initrd, disk_bytes)


def _disk_of(ledger: Ledger) -> Path:
    return ledger.paths.root / "puzzle.qcow2"
