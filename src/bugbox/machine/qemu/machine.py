# SPDX-License-Identifier: Apache-2.0
"""One machine that QEMU runs: QEMU's events in, the states of machine.state out.

QEMU is a process of its own and outlives us; this object holds its monitor, its console and the
lifeline's port for as long as we live.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio

from bugbox.errors import (
    BootFailed,
    BugboxError,
    GuestError,
    MachineLost,
    StateError,
)
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.life import Life
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.qemu.capture import copy, end_copying, run_on, take_over
from bugbox.machine.qemu.images import merge
from bugbox.machine.qemu.migration import (
    IGNORE_SHARED,
    WHOLE,
    FileReceiver,
    Receiver,
    receiver,
)
from bugbox.machine.qemu.monitor import Monitor
from bugbox.machine.qemu.usernet import Forwarding, forwarded
from bugbox.machine.qemu.verdict import block_error, shutdown_reason
from bugbox.machine.sockets import log_tail
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import TABLE, State, advance
from bugbox.machine.template import Capture
from bugbox.machine.verdict import boot_trouble
from bugbox.paths import SessionPaths

__all__ = ["QemuMachine"]

log = logging.getLogger(__name__)

_ON_ITS_WAY = (State.BOOTING, State.REBOOTING)
_OVER = (State.STOPPING, State.STOPPED)
_PATIENCE = "a busy or slow host needs more time: BUGBOX_TIMEOUT_FACTOR=3 in front of the command"
#: Losses of the monitor of a QEMU that lives, before it is given up.
_LOSSES = 3
#: Saving or loading may take so long, and as long as its memory needs at this pace.
_SAVE_SECONDS, _SAVE_MIB_A_SECOND = 30.0, 20.0
#: Bytes a second that QEMU may send: it has a limit of its own otherwise.
_NO_LIMIT = 1 << 40
#: QEMU's words for a machine that its last keeper was saving, or had saved and not used.
_SAVING = ("finish-migrate", "postmigrate")
#: For merging images: it copies what was written since the last copy of the machine.
_MERGE_SECONDS = 120.0
_UNWRITTEN = "the host could not write its disk"
_WENT_OFF = "the guest powered itself off"


class QemuMachine(Life):
    """A machine in one QEMU. Made by the driver."""

    def __init__(self, spec: MachineSpec, process: Process, *, factor: float, state: State) -> None:
        lifeline = Lifeline(SessionPaths(spec.root, spec.runtime).lifeline, factor=factor)
        super().__init__(spec, process, lifeline, state)
        self.console.on_line = self._on_line
        #: How often a silent boot was begun again.
        self.retries = 0
        self._factor = factor
        self._monitor = self._new_monitor()
        #: The guest has opened its end of the lifeline's port in this boot.
        self._opened = False
        #: Resets seen, so that one we asked for can be waited for.
        self._resets = 0
        #: How far saving or loading is, in QEMU's word.
        self._migration = ""
        self._panic = ""
        self._before_stall = State.READY
        #: What the disk was refused last; why the machine stands still when it has stopped.
        self._block_error = ""
        self._boot: asyncio.Task[None] | None = None
        #: Runs while a lost monitor is found dead or taken up again.
        self._finding: asyncio.Task[None] | None = None
        self._losses = 0
        self._released = False
        self._opening = anyio.Lock()

    @contextlib.asynccontextmanager
    async def opening(self, port: int) -> AsyncIterator[Forwarding]:
        """Open a way from this host to a TCP port of the guest, through its first network card."""
        if not self.spec.nics:
            raise GuestError("the machine has no network card")
        nic = self.spec.nics[0].id
        async with forwarded(self._ask, self._opening, nic, port) as way:
            yield way

    async def _ask(self, line: str) -> str:
        """Run a command of the human monitor, for what the other one does not have."""
        await self._found()
        said = await self._monitor.execute("human-monitor-command", {"command-line": line})
        return str(said)

    # What can be done with it.

    async def pause(self) -> None:
        """Stop the virtual CPUs."""
        advance(self._state, State.PAUSED)
        self._block_error = ""
        await self._command("stop")
        if self._state is State.STALLED:
            raise StateError(f"it stands still already: {self._reason}")
        self.lifeline.paused = True
        self._set(State.PAUSED)

    async def resume(self) -> None:
        """Let them run on: from PAUSED, and from STALLED once there is room again."""
        await self._found()
        if self._state not in (State.PAUSED, State.STALLED):
            raise StateError(f"a machine that is {self._state} cannot be resumed")
        before = self._state
        # The state first: the disk may be found full again before the command has returned.
        self._set(self._before_stall if before is State.STALLED else State.READY)
        self.lifeline.paused = False
        try:
            await self._command("cont")
        except BugboxError as error:
            self.lifeline.paused = True
            if before in TABLE[self._state]:
                self._set(before, error.message)
            raise
        if not self._greeted:
            self._begin_boot(retry=False)

    async def reset(self) -> None:
        """Boot it again on the same disk, whatever the guest does. MachineLost: QEMU is gone."""
        await self._found()
        if not self.process.alive:
            raise MachineLost(f"{self.spec.id}: its QEMU is gone")
        if self._state is State.FAILED and self._tasks:
            await asyncio.wait(list(self._tasks))  # what the failure still has to end
        if self._state is State.PAUSED:
            self._set(State.READY)
        if self._state is not State.REBOOTING:
            target = State.REBOOTING if self._state is State.READY else State.BOOTING
            self._set(State.REBOOTING if self._state is State.BOOTING else target)
        await self._reset()
        await self._command("cont")

    async def save(self) -> bytes:
        """End it and return the state of its devices; its memory is in its file.

        The lifeline stays connected to the last, so that in a clone its agent goes on as with a
        host that begins a new conversation, and has no end of file to recover from. QEMU is killed:
        closing its sockets in good order it would tell the guest, in a memory that is saved.
        """
        await self.pause()
        limit = 30.0 * self._factor
        async with receiver(self._paths.state_socket, self.spec.uid, Receiver()) as state:
            await self._tell("migrate-set-capabilities", {"capabilities": IGNORE_SHARED})
            await self._tell("migrate", {"uri": f"unix:{self._paths.state_socket}"})
            try:
                async with asyncio.timeout(limit):
                    while self._migration not in ("completed", "failed"):
                        await self._change()
            except TimeoutError:
                raise MachineLost(f"QEMU did not save within {limit:g} s") from None
            if self._migration == "failed":
                raise GuestError(f"QEMU did not save: {log_tail(self.spec, 1)}")
            saved = await state.whole(limit)
        # The disk is whole: a state that was sent is another QEMU's to go on with.
        self._set(State.STOPPING)
        await self._monitor.aclose()
        self.process.kill()
        await self.stop(0.0)
        return saved

    async def suspend(self, sink: int) -> tuple[int, str]:
        """Write a paused machine with all its memory to `sink`; return how much, and its digest.

        It stays paused. It may run on as if nothing had been, or be ended and restored. OSError
        when `sink` takes no more, GuestError when QEMU does not give it.
        """
        if self._state is not State.PAUSED:
            raise StateError(f"a machine that is {self._state} cannot be saved")
        limit = self._patience
        self._migration = ""
        socket, uid = self._paths.state_socket, self.spec.uid
        async with receiver(socket, uid, FileReceiver(sink)) as taken:
            try:
                await self._tell("migrate-set-capabilities", {"capabilities": WHOLE})
                await self._tell("migrate-set-parameters", {"max-bandwidth": _NO_LIMIT})
                await self._tell("migrate", {"uri": f"unix:{socket}"})
                async with asyncio.timeout(limit):
                    while self._migration not in ("completed", "failed"):
                        if self._state is not State.PAUSED:
                            raise self._why_not()
                        await self._change()
                if self._migration == "failed" and taken.error is None:
                    raise GuestError(f"QEMU did not save: {log_tail(self.spec, 1)}")
                return await taken.written(limit)
            except TimeoutError:
                await self._give_up_saving()
                raise GuestError(f"QEMU did not save within {limit:g} s") from None
            except BaseException:
                await self._give_up_saving()
                raise

    @property
    def _patience(self) -> float:
        """Seconds that all of its memory may take on its way."""
        return (_SAVE_SECONDS + self.spec.mem_mib / _SAVE_MIB_A_SECOND) * self._factor

    async def _give_up_saving(self) -> None:
        """Leave QEMU as it was before: what it has begun to send is of no use."""
        with anyio.CancelScope(shield=True), contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(10.0 * self._factor):
                if self._migration not in ("completed", "failed", "cancelled"):
                    await self._tell("migrate_cancel", None)
                while self._migration not in ("completed", "failed", "cancelled"):
                    await self._change()

    async def capture(self, wanted: Capture) -> None:
        """Copy it while it runs; whatever happens, it runs on."""
        await self._found()
        if self._state is not State.READY:
            raise StateError(f"a machine that is {self._state} cannot be copied")
        self._migration = ""
        try:
            await copy(self._monitor, self.process.pid, wanted, self._copied_so_far, self._factor)
        finally:
            with anyio.CancelScope(shield=True):
                await self._run_on()

    async def merge(self, drive: str, images: Sequence[Path]) -> None:
        """Move what the first of `images` hold into the last of them; it runs on meanwhile."""
        await self._found()
        await merge(self._monitor, self.process.pid, drive, images, _MERGE_SECONDS * self._factor)

    async def _copied_so_far(self, before: str) -> str:
        """Wait until QEMU's word for how far it is differs from `before`; return it."""
        while self._migration == before and self._state is State.READY:
            await self._change()
        if self._state is not State.READY:
            raise MachineLost(f"the machine is {self._state}")
        return self._migration

    async def _run_on(self) -> None:
        """After a copy, or a part of one: end what is left of it, and let the guest run."""
        await end_copying(self._monitor, self._factor)
        if self._state in (State.READY, *_ON_ITS_WAY):
            await run_on(self._monitor, self._factor)

    async def stop(self, grace: float = 5.0) -> None:
        """End it: ask the guest, then QEMU, then kill. Its process is gone afterwards."""
        if self._state is State.STOPPED:
            return
        asked = grace > 0 and self.lifeline.connected and self._state is State.READY
        if self._state is not State.STOPPING:
            self._set(State.STOPPING)
        if asked:
            await self._power_off(grace)
        await self._cancel_tasks()
        with contextlib.suppress(GuestError):
            await self._monitor.execute("quit", timeout=2.0)
        # A monitor that does not answer has had its chance.
        for wait, signal in ((2.0, True), (10.0, False)):
            if await in_thread(self.process.wait_gone, wait):
                break
            if signal:
                self.process.kill()
        await self._let_go()
        if self.process.alive:
            reason = f"process {self.process.pid} does not end"
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
        """Connect monitor and console; return QEMU's run state."""
        await self._monitor.connect()
        try:
            await self.console.connect()
        except OSError as error:
            raise MachineLost("the console has gone") from error
        return await self._monitor.status()

    async def load(self, state: int, *, whole: bool = False) -> None:
        """Load what another machine's QEMU saved, from a pipe that ours inherited; let it run.

        With `whole` its memory comes from there, too.
        """
        if whole:
            await self._load(state, WHOLE, self._patience)
        else:
            await self._load(state, IGNORE_SHARED, 10.0 * self._factor)
        self.console.mark(f"clone of {self.spec.id}")
        self._begin_boot(retry=False)
        await self._command("cont")

    async def restore(self, state: int) -> None:
        """Load what `suspend` wrote, from a pipe that ours inherited; it is paused then."""
        await self._load(state, WHOLE, self._patience)
        self.console.mark(f"{self.spec.id} was loaded")
        self._state = State.PAUSED
        self.lifeline.paused = True

    async def _load(self, state: int, capabilities: list[dict[str, object]], limit: float) -> None:
        await self._tell("migrate-set-capabilities", {"capabilities": capabilities})
        await self._tell("migrate-incoming", {"uri": f"fd:{state}"})
        try:
            async with asyncio.timeout(limit):
                # One that cannot load it ends: the monitor is lost, and `_find_out` says why.
                while self._migration != "completed" and self._state is State.BOOTING:
                    await self._change()
        except TimeoutError:
            raise MachineLost(f"QEMU did not load the machine within {limit:g} s") from None
        if self._state is not State.BOOTING:
            raise self._why_not()

    async def start(self) -> None:
        """Let a machine run that QEMU has just made, and follow its boot."""
        self.console.mark(f"boot of {self.spec.id}")
        self._begin_boot(retry=True)
        await self._command("cont")

    async def take_up(self, status: str, patience: float) -> None:
        """Make what it can of a machine that ran on without us."""
        if await take_over(self._monitor, self._factor):
            status = await self._monitor.status()
        if status == "running":
            if not await self._same_boot(patience):
                self._state = State.REBOOTING
                self._begin_boot(retry=False)
        elif status == "prelaunch":
            self._state = State.BOOTING
            await self.start()
        elif status == "io-error":
            self._state, self._reason = State.STALLED, _UNWRITTEN
        elif status == "shutdown":
            self._state, self._reason = State.OFF, _WENT_OFF
        elif status in ("paused", *_SAVING):
            self._state = State.PAUSED
        else:
            raise MachineLost(f"its QEMU is in state {status}")
        self.lifeline.paused = self._state not in (State.READY, *_ON_ITS_WAY)

    # A boot.

    def _begin_boot(self, *, retry: bool) -> None:
        self._greeted = self._opened = False
        self.lifeline.paused = False
        if self._boot is not None:
            self._boot.cancel()
        self._boot = self._spawn(self._follow_boot(retry))

    async def _follow_boot(self, retry: bool) -> None:
        """Wait for the hello; begin again once when nothing at all is heard for half the time."""
        limit = self.spec.boot_timeout
        heard = self.console.heard
        hello = asyncio.ensure_future(self.lifeline.resynchronize(limit))
        try:
            await asyncio.wait([hello], timeout=limit / 2)
            if retry and not hello.done() and self.console.heard == heard and not self._opened:
                await self._try_again()
                return
            await hello
        except GuestError as error:
            late = f"the machine did not start within {limit:g} s"
            await self._fail_boot(late, error.message, _PATIENCE)
        else:
            self._greeted = True
            self._wake()
        finally:
            hello.cancel()
            await asyncio.gather(hello, return_exceptions=True)

    async def _try_again(self) -> None:
        """Reset a machine that has been silent: some boots under emulation never get a clock."""
        log.warning("%s: silent since its start; started again", self.spec.id)
        self.retries += 1
        self.console.mark("silent; started again")
        # This task is the boot that ends here: the RESET event begins the next.
        self._boot = None
        await self._command("system_reset")

    async def _reset(self) -> None:
        """Reset, and return once it is done; the event has begun to follow the new boot."""
        self._greeted = False
        before = self._resets
        await self._command("system_reset")
        try:
            async with asyncio.timeout(10.0 * self._factor):
                while self._resets == before:
                    await self._change()
        except TimeoutError:
            raise MachineLost("QEMU did not reset the machine") from None

    async def _fail_boot(self, message: str, cause: str = "", hint: str | None = None) -> None:
        """The boot has failed: nothing runs on, and every waiting call ends."""
        if self._state in (*_OVER, State.FAILED):
            return
        lines = [*([cause] if cause else []), *self.console.tail()]
        self._error = BootFailed(message, detail="\n".join(lines), hint=hint)
        self._set(State.FAILED, message)
        self.lifeline.paused = True
        with contextlib.suppress(GuestError):
            await self._command("stop")
        await self.lifeline.aclose()

    # What we are told.

    def _on_event(self, name: str, data: Mapping[str, object]) -> None:
        if self._released or self._state in _OVER:
            if name == "SHUTDOWN":
                self._powered_off = True
                self._wake()
            return
        if name == "RESET":
            self._on_reset(by_guest=bool(data.get("guest")))
        elif name == "SHUTDOWN" and State.OFF in TABLE[self._state]:
            self._stand_still(State.OFF, shutdown_reason(data))
        elif name == "BLOCK_IO_ERROR" and data.get("action") == "stop":
            # One for each write in flight, some of them late: only with STOP does it stand still.
            self._block_error = block_error(data)
        elif name == "RESUME":
            self._block_error = ""
        elif name == "STOP" and self._block_error and State.STALLED in TABLE[self._state]:
            self._before_stall = self._state
            self._stand_still(State.STALLED, self._block_error)
        elif name == "MIGRATION":
            self._migration = str(data.get("status"))
            self._wake()
        elif name == "VSERPORT_CHANGE":
            self._opened = self._opened or bool(data.get("open"))
            self.lifeline.port_changed(bool(data.get("open")))

    def _on_reset(self, *, by_guest: bool) -> None:
        self._resets += 1
        first = self._state is State.BOOTING and not self._greeted
        if by_guest and State.REBOOTING in (*TABLE[self._state], self._state):
            self.console.mark("reboot")
            self._set(State.REBOOTING, self._panic)
        self._panic = ""
        if self._state in _ON_ITS_WAY:
            # One try more for a machine that never came up; a guest that reboots has a clock.
            self._begin_boot(retry=first and by_guest and self.retries == 0)
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
            self._finding = self._spawn(self._find_out())

    async def _find_out(self) -> None:
        """The monitor's connection ended: QEMU is dead, or only the connection is."""
        self._losses += 1
        if await in_thread(self.process.wait_gone, 2.0):
            last = log_tail(self.spec)
            line = last.splitlines()[-1] if last else "it said nothing"
            self._error = MachineLost(f"QEMU ended unexpectedly: {line}", detail=last)
        elif self._losses > _LOSSES:
            self._error = MachineLost("QEMU's monitor was lost again and again")
        else:
            self._monitor = self._new_monitor()
            try:
                await self._monitor.connect()
                self._catch_up(await self._monitor.status())
                return
            except GuestError as error:
                await self._monitor.settled()
                if self._finding is not asyncio.current_task():
                    return  # lost again, and looked into already
                self._error = error
        if State.FAILED in TABLE[self._state]:
            self._set(State.FAILED, self._error.message)
        self.lifeline.paused = True
        await self.lifeline.aclose()
        self._wake()

    def _catch_up(self, status: str) -> None:
        """Make up for the events of the time without a monitor, which nobody repeats."""
        follows = TABLE[self._state]
        if status == "shutdown" and State.OFF in follows:
            self._stand_still(State.OFF, _WENT_OFF)
        elif status == "io-error" and State.STALLED in follows:
            self._before_stall = self._state
            self._stand_still(State.STALLED, _UNWRITTEN)
        elif status == "paused" and State.PAUSED in follows:
            self._stand_still(State.PAUSED, "")
        elif status == "running" and self._state is State.READY:
            self._spawn(self._look_for_reboot())

    async def _look_for_reboot(self) -> None:
        """A guest that has rebooted unseen knows nothing of our conversation."""
        limit = 10.0 * self._factor
        with contextlib.suppress(GuestError):
            await self.lifeline.ping(limit)
            if await self._same_boot(limit):
                return
        if self._state is State.READY:
            self.console.mark("reboot")
            self._set(State.REBOOTING)
            self._begin_boot(retry=False)

    # Small things.

    async def _command(self, command: str) -> None:
        await self._tell(command, None)

    async def _tell(self, command: str, arguments: Mapping[str, object] | None) -> None:
        """Say it to QEMU, once a connection that was just lost is known dead or is back."""
        await self._found()
        await self._monitor.execute(command, arguments)

    async def _found(self) -> None:
        """Wait until a lost monitor is found dead or is back, and what it missed is known."""
        await self._monitor.settled()
        if self._finding is not None and not self._finding.done():
            await asyncio.wait([self._finding])

    def _new_monitor(self) -> Monitor:
        return Monitor(
            self._paths.qmp,
            on_event=self._on_event,
            on_lost=self._on_lost,
            timeout=10.0 * self._factor,
        )

    async def _let_go(self) -> None:
        await self.lifeline.aclose()
        await self.console.aclose()
        await self._monitor.aclose()
