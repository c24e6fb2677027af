# SPDX-License-Identifier: Apache-2.0
"""What every driver's machine is made of: a state that others watch and wait for, and tasks.

A driver's machine says `_set`, in the event loop, and whoever waits in `_change` looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from bugbox.errors import BootFailed, BugboxError, GuestError, MachineLost, OutOfResources
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.console import Console
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State, advance
from bugbox.paths import SessionPaths

__all__ = ["Life"]

log = logging.getLogger(__name__)

_UP = (State.BOOTING, State.REBOOTING, State.READY, State.PAUSED)


class Life:
    """A machine's state, its watchers and what runs for it; a driver's machine is one."""

    def __init__(
        self, spec: MachineSpec, process: Process, lifeline: Lifeline, state: State
    ) -> None:
        self.spec = spec
        self.process = process
        self.lifeline = lifeline
        self._paths = SessionPaths(spec.root, spec.runtime)
        self.console = Console(self._paths.console_socket, self._paths.console)
        self._state = state
        self._reason = ""
        #: Why it failed, for whoever waits.
        self._error: BugboxError | None = None
        self._watchers: list[Callable[[State], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        #: The lifeline has spoken since this boot began.
        self._greeted = False
        #: Seen while it was being stopped.
        self._powered_off = False

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is off, stalled, failed or rebooting after a panic; empty otherwise."""
        return self._reason

    def watch(self, callback: Callable[[State], None]) -> None:
        """Call `callback` with every new state; with REBOOTING once for each reboot."""
        self._watchers.append(callback)

    async def wait_lifeline(self) -> None:
        """Wait for the lifeline's hello of this boot; raise what keeps it from coming.

        After a failure it raises the same error again: the cause behind whatever broke off.
        """
        while True:
            if self._state is State.STALLED:
                raise OutOfResources(self._reason, hint="free some space, then resume it")
            if self._state not in _UP:
                raise self._why_not()
            if self._greeted:
                return
            await self._change()

    async def reached(self, target: State) -> None:
        """The session says what only it can know: READY after a boot."""
        self._set(target)
        hello = self.lifeline.hello
        kept = {"boot_id": hello.boot_id if hello else "", "milestones": self.lifeline.milestones}
        with contextlib.suppress(OSError):
            await in_thread(self._paths.boot_events.write_text, json.dumps(kept) + "\n")

    def _set(self, target: State, reason: str = "") -> None:
        if target is not self._state:
            self._state = advance(self._state, target)
        self._reason = reason
        if target is not State.FAILED:
            self._error = None
        for callback in list(self._watchers):
            try:
                callback(target)
            except Exception:
                log.exception("%s: a watcher failed", self.spec.id)
        self._wake()

    async def _change(self) -> None:
        """Wait until anything has changed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %s", self.spec.id, error, exc_info=error)

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _same_boot(self, patience: float) -> bool:
        """Whether the lifeline answers and tells of the boot that a session has seen the end of."""
        try:
            await self.lifeline.connect(patience)
            kept = json.loads(self._paths.boot_events.read_text())
        except (GuestError, OSError, ValueError):
            return False
        self._greeted = True
        hello = self.lifeline.hello
        return hello is not None and isinstance(kept, dict) and kept.get("boot_id") == hello.boot_id

    async def _power_off(self, grace: float) -> None:
        """Ask the guest's init, and wait until it has gone down or `grace` is over."""
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(grace):
                await self.lifeline.shutdown("poweroff")
                while not self._powered_off:
                    await self._change()

    def _why_not(self) -> BugboxError:
        if self._error is not None and self._state is State.FAILED:
            return self._error
        if self._state is State.OFF:
            return BootFailed(
                f"the machine is off: {self._reason}", detail="\n".join(self.console.tail())
            )
        return MachineLost(f"the machine is {self._state}")
