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

#: What a machine was made of: base, kernel, initramfs, size of its disks.
_Key = tuple[str, Path, Path, int]


@dataclass(frozen=True, slots=True)
class _Standby:
    key: _Key
    ledger: Ledger

    @property
    def disk(self) -> Path:
        return _disk_of(self.ledger)


class Resident:
    """At most one build machine that stands by, of this process. Close it at the end."""

    def __init__(self) -> None:
        self._standby: _Standby | None = None
        self._filling: threading.Thread | None = None
        self._cancel: Callable[[], object] | None = None
        self._closed = False

    @property
    def stands_by(self) -> bool:
        """Whether there is one; waits for one that is being made."""
        self._join()
        return self._standby is not None

    def fill(self, parts: Parts, disk_bytes: int) -> None:
        """See to one in the background, for builds with these parts and disks of that size."""
        self._join()
        key = _key(parts, disk_bytes)
        if self._closed or (self._standby is not None and self._standby.key == key):
            return
        self._drop()
        self._filling = threading.Thread(target=self._fill, args=(parts, disk_bytes))
        self._filling.start()

    @asynccontextmanager
    async def claimed(
        self, parts: Parts, disk_bytes: int, to: Path
    ) -> AsyncIterator[Machine | None]:
        """Give the machine that stands by to one build, ready for it; None: there is none.

        Afterwards it is gone, and its puzzle's disk is at `to` when all went well.
        """
        async with AsyncExitStack() as undo:
            standby = await in_thread(self._take, _key(parts, disk_bytes))
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
        if self._cancel is not None:
            self._cancel()
        self._join()
        self._drop()

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

    def _take(self, key: _Key) -> _Standby | None:
        self._join()
        standby = self._standby
        if standby is None or standby.key != key:
            return None
        self._standby = None
        return standby

    def _drop(self) -> None:
        standby, self._standby = self._standby, None
        if standby is not None:
            give_back(standby.ledger)

    def _join(self) -> None:
        thread, self._filling = self._filling, None
        if thread is not None:
            thread.join()

    # In the thread.

    def _fill(self, parts: Parts, disk_bytes: int) -> None:
        try:
            anyio.run(self._cancellable, parts, disk_bytes)
        except (BugboxError, OSError) as error:
            log.warning("no build machine stands by: %s", error)

    async def _cancellable(self, parts: Parts, disk_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            self._cancel = lambda: loop.call_soon_threadsafe(scope.cancel)
            try:
                if not self._closed:
                    self._standby = await _stand_by(parts, disk_bytes)
            finally:
                self._cancel = None


async def _stand_by(parts: Parts, disk_bytes: int) -> _Standby:
    key = _key(parts, disk_bytes)
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
    return _Standby(key, ledger)


def _key(parts: Parts, disk_bytes: int) -> _Key:
    return (parts.image.digest, parts.kernel.vmlinux, parts.initrd, disk_bytes)


def _disk_of(ledger: Ledger) -> Path:
    return ledger.paths.root / "puzzle.qcow2"
