# SPDX-License-Identifier: Apache-2.0
"""One machine that Firecracker runs: its warden's events in, the states of machine.state out.

The warden is the machine's process: it outlives us and its Firecracker. This object holds its
control socket, the console, and the lifeline's vsock for as long as we live.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bugbox.errors import BootFailed, BugboxError, GuestError, MachineLost, StateError
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.driver import Opening
from bugbox.machine.firecracker.api import Api
from bugbox.machine.firecracker.control import Control
from bugbox.machine.firecracker.launch import last_words
from bugbox.machine.firecracker.model import VmState
from bugbox.machine.firecracker.version import PAUSE_BREAKS_VSOCK
from bugbox.machine.life import Life
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.lifeline.vsock import LIFELINE_PORT
from bugbox.machine.sockets import log_tail
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import TABLE, State, advance
from bugbox.machine.template import Capture
from bugbox.machine.verdict import boot_trouble
from bugbox.paths import SessionPaths

__all__ = ["FirecrackerMachine"]

_ON_ITS_WAY = (State.BOOTING, State.REBOOTING)
_OVER = (State.STOPPING, State.STOPPED)
_PATIENCE = "a busy or slow host needs more time: BUGBOX_TIMEOUT_FACTOR=3 in front of the command"
_WENT_OFF = "the guest powered itself off"
_NO_COPIES = "a Firecracker machine cannot be saved or copied yet"


class FirecrackerMachine(Life):
    """A machine in one Firecracker. Made by the driver."""

    def __init__(
        self,
        spec: MachineSpec,
        process: Process,
        *,
        factor: float,
        state: State,
        end_rest: Callable[[], None],
    ) -> None:
        paths = SessionPaths(spec.root, spec.runtime)
        lifeline = Lifeline(paths.vsock, port=LIFELINE_PORT, factor=factor)
        super().__init__(spec, process, lifeline, state)
        self.console.on_line = self._on_line
        self._factor = factor
        #: Ends what outlives a warden; StateError when it cannot.
        self._end_rest = end_rest
        self._control = Control(paths.control, self._on_event, self._on_lost)
        self._api = Api(paths.api, factor=factor)
        #: Its version is known and it answers.
        self._asked = False
        #: Its process is stopped, which a version with a broken pause is.
        self._frozen = False
        self._panic = ""
        self._boot: asyncio.Task[None] | None = None
        self._released = False

    @contextlib.asynccontextmanager
    async def opening(self, port: int) -> AsyncIterator[Opening]:
        """There is no way in but the lifeline's."""
        if not self.spec.nics:
            raise GuestError("the machine has no network card")
        raise GuestError("a Firecracker machine's ports cannot be opened yet")
        yield

    # What can be done with it.

    async def pause(self) -> None:
        """Stop the virtual CPUs."""
        advance(self._state, State.PAUSED)
        await self._run_or_pause("Paused")
        self.lifeline.paused = True
        self._set(State.PAUSED)

    async def resume(self) -> None:
        """Let them run on."""
        if self._state is not State.PAUSED:
            raise StateError(f"a machine that is {self._state} cannot be resumed")
        await self._run_or_pause("Resumed")
        self.lifeline.paused = False
        self._set(State.READY)
        if not self._greeted:
            self._begin_boot()

    async def reset(self) -> None:
        """Boot it again on the same disk, whatever the guest does. MachineLost: it is gone."""
        if not self.process.alive:
            raise MachineLost(f"{self.spec.id}: its Firecracker is gone")
        if self._state is State.FAILED and self._tasks:
            await asyncio.wait(list(self._tasks))  # what the failure still has to end
        if self._state is State.PAUSED:
            self._set(State.READY)
        if self._state is not State.REBOOTING:
            again = self._state in (State.READY, State.BOOTING)
            self._set(State.REBOOTING if again else State.BOOTING)
        self._greeted = False
        await self._control.ask("reset", "reset", 10.0 * self._factor)

    async def save(self) -> bytes:
        """Not yet."""
        raise StateError(_NO_COPIES, hint="--driver qemu")

    async def suspend(self, sink: int) -> tuple[int, str]:
        """Not yet."""
        raise StateError(_NO_COPIES, hint="--driver qemu")

    async def capture(self, wanted: Capture) -> None:
        """Not yet."""
        raise StateError(_NO_COPIES, hint="--driver qemu")

    async def merge(self, drive: str, images: Sequence[Path]) -> None:
        """It has no images to merge: it is never copied."""
        raise StateError(_NO_COPIES, hint="--driver qemu")

    async def stop(self, grace: float = 5.0) -> None:
        """End it: ask the guest, then the warden, then kill. Its process is gone afterwards."""
        if self._state is State.STOPPED:
            return
        asked = grace > 0 and self.lifeline.connected and self._state is State.READY
        if self._state is not State.STOPPING:
            self._set(State.STOPPING)
        if asked:
            await self._power_off(grace)
        await self._cancel_tasks()
        with contextlib.suppress(GuestError):
            await self._control.say("quit")
        for wait in (2.0, 10.0):
            if await in_thread(self.process.wait_gone, wait):
                break
            self.process.kill()
        reason = f"process {self.process.pid} does not end" if self.process.alive else ""
        try:
            await in_thread(self._end_rest)
        except BugboxError as error:
            reason = reason or error.message
        await self._let_go()
        if reason:
            self._set(State.FAILED, reason)
            raise GuestError(reason, hint="it hangs in the kernel: look at the host's disks")
        self._set(State.STOPPED)

    async def release(self) -> None:
        """Let go of its sockets without ending it: another process may adopt it."""
        self._released = True
        await self._cancel_tasks()
        await self._let_go()

    # For the driver.

    async def attach(self) -> str:
        """Connect warden and console; return what Firecracker is: running, frozen or off."""
        said = await self._control.connect(10.0 * self._factor)
        try:
            await self.console.connect()
        except OSError as error:
            raise MachineLost("the console has gone") from error
        return said

    async def start(self) -> None:
        """Wait until Firecracker has made the machine and runs it, and follow its boot."""
        self.console.mark(f"boot of {self.spec.id}")
        try:
            await self._answers()
        except GuestError:
            if isinstance(self._error, BootFailed):
                return  # The guest was the quicker one: whoever waits for its lifeline is told.
            raise
        self._begin_boot()

    async def take_up(self, said: str, patience: float) -> None:
        """Make what it can of a machine that ran on without us."""
        self._frozen = said == "frozen"
        if said == "off":
            self._state, self._reason = State.OFF, _WENT_OFF
        elif self._frozen or (await self._answers()) == "Paused":
            self._state = State.PAUSED
        elif not await self._same_boot(patience):
            self._state = State.REBOOTING
            self._begin_boot()
        self.lifeline.paused = self._state not in (State.READY, *_ON_ITS_WAY)

    # A boot.

    def _begin_boot(self) -> None:
        self._greeted = False
        self.lifeline.paused = False
        if self._boot is not None:
            self._boot.cancel()
        self._boot = self._spawn(self._follow_boot())

    async def _follow_boot(self) -> None:
        """Wait for the hello."""
        limit = self.spec.boot_timeout
        try:
            await self.lifeline.resynchronize(limit)
        except GuestError as error:
            late = f"the machine did not start within {limit:g} s"
            await self._fail_boot(late, error.message, _PATIENCE)
        else:
            self._greeted = True
            self._wake()

    async def _fail_boot(self, message: str, cause: str = "", hint: str | None = None) -> None:
        """The boot has failed: nothing runs on, and every waiting call ends."""
        if self._state in (*_OVER, State.FAILED):
            return
        lines = [*([cause] if cause else []), *self.console.tail()]
        self._error = BootFailed(message, detail="\n".join(lines), hint=hint)
        self._set(State.FAILED, message)
        self.lifeline.paused = True
        with contextlib.suppress(GuestError):
            await self._control.say("halt")
        await self.lifeline.aclose()

    # What we are told.

    def _on_event(self, told: dict[str, Any]) -> None:
        event = told.get("event")
        if self._released or self._state in _OVER:
            self._powered_off = self._powered_off or event == "off"
            self._wake()
        elif event == "reset":
            self._on_reset(by_guest=told.get("by") == "guest")
        elif event == "off" and State.OFF in TABLE[self._state]:
            self._stand_still(State.OFF, _WENT_OFF)

    def _on_reset(self, *, by_guest: bool) -> None:
        self._asked = self._frozen = False
        if by_guest and State.REBOOTING in (*TABLE[self._state], self._state):
            self.console.mark("reboot")
            self._set(State.REBOOTING, self._panic)
        self._panic = ""
        if self._state in _ON_ITS_WAY:
            self._begin_boot()
        self._wake()

    def _stand_still(self, state: State, reason: str) -> None:
        if self._boot is not None:
            self._boot.cancel()
            self._boot = None
        self.lifeline.paused = True
        self._set(state, reason)

    def _on_line(self, line: str) -> None:
        trouble = boot_trouble(line, ours=not self._greeted)
        if trouble is None:
            return
        self._panic = trouble
        if self._state in _ON_ITS_WAY:
            self._spawn(self._fail_boot(trouble))

    def _on_lost(self) -> None:
        if not self._released and self._state not in _OVER:
            self._spawn(self._find_out())

    async def _find_out(self) -> None:
        """The warden's connection ended: it has died, or its Firecracker has, and it says why."""
        gone = await in_thread(self.process.wait_gone, 2.0)
        # What is called failed must not run on.
        with contextlib.suppress(BugboxError):  # stop says it
            await in_thread(self._end_rest)
        said = f"Firecracker ended unexpectedly: {last_words(self.spec)}"
        why = said if gone else "the machine's warden hangs"
        self._error = error = MachineLost(why, detail=log_tail(self.spec))
        if State.FAILED in TABLE[self._state]:
            self._set(State.FAILED, error.message)
            self._error = error
        self.lifeline.paused = True
        await self.lifeline.aclose()
        self._wake()

    # Small things.

    async def _run_or_pause(self, state: Literal["Paused", "Resumed"]) -> None:
        if not self._frozen:
            await self._answers()
        if self._frozen or self._api.version == PAUSE_BREAKS_VSOCK:
            pausing, limit = state == "Paused", 10.0 * self._factor
            await self._control.ask(
                "freeze" if pausing else "thaw", "frozen" if pausing else "thawed", limit
            )
            self._frozen = pausing
        else:
            await self._api.send(VmState(state=state))

    async def _answers(self) -> str:
        """Wait until Firecracker's API does; return the machine's state in its own word."""
        if self._asked:
            return (await self._api.instance()).state
        waiting = asyncio.ensure_future(self._api.ready(20.0 * self._factor))
        try:
            # One that cannot make the machine ends at once, and says why.
            while not waiting.done() and self._state not in (State.FAILED, *_OVER):
                changed = asyncio.ensure_future(self._change())
                await asyncio.wait([waiting, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            if not waiting.done():
                raise self._why_not()
            instance = waiting.result()
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, BugboxError):
                await waiting
        self._asked = True
        return instance.state

    async def _let_go(self) -> None:
        await self.lifeline.aclose()
        await self.console.aclose()
        await self._control.aclose()
        await self._api.aclose()
