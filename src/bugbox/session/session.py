# SPDX-License-Identifier: Apache-2.0
"""One learner's attempt: a machine that may reboot, power off or die, and what is kept across it.

Whoever has a Session has its lock. The machine tells its states; the session follows a guest's
reboot to its end, writes each state down, and wakes those who wait.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from bugbox.errors import BugboxError, GuestError, MachineLost, StateError
from bugbox.host.bridge import in_thread
from bugbox.machine.driver import Machine
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.state import State
from bugbox.session.checkpoints import discard
from bugbox.session.identity import clock_offset, set_clock
from bugbox.session.limits import OVER, bind, ends_at, extended
from bugbox.session.logs import tail
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Bring, Host, boot_same_disk, bring_up, make_ready
from bugbox.session.reaper import end_vmm, give_back, give_back_soon
from bugbox.session.record import Ledger, Phase, Record
from bugbox.session.saving import SAVED, drop, load, save
from bugbox.session.stopwatch import Stopwatch

__all__ = ["PAUSED", "Session", "Spawn"]

log = logging.getLogger(__name__)

Spawn = Callable[[Callable[[], Awaitable[None]]], None]
Asked = Callable[[str, list[str]], Awaitable[tuple[bytes, int]]]

_GOING = frozenset({State.BOOTING, State.REBOOTING, State.STOPPING})
#: Seconds that a question waits for a machine that is on its way up.
_SETTLE_TIMEOUT = 120.0
_RECONNECT_TIMEOUT = 5.0
#: Seconds that a guest has to tell its clock before it is paused, and to take the time after.
_CLOCK_TIMEOUT = 5.0
#: Why it rests when somebody asked for that.
PAUSED = "it was paused"
_CONSOLE_FIRST = 1 << 14


class Session:
    """A machine of somebody's own, for as long as this process keeps it."""

    def __init__(
        self, ledger: Ledger, plan: Plan, host: Host, machine: Machine | None, spawn: Spawn
    ) -> None:
        self.ledger = ledger
        self.plan = plan
        self.host = host
        self.machine: Machine | None = None
        #: One at a time: reset, resume, stop, a copy.
        self.changing = anyio.Lock()
        #: The reset or resume under way, which a stop does not wait for.
        self._change: anyio.CancelScope | None = None
        self._ending = False
        #: Why the last boot did not end well; empty when it did.
        self.trouble = ""
        #: Why we paused it and do not let it run on; empty when the next use may.
        self.standing = ""
        #: Why it is paused until somebody uses it; empty when it is not.
        self.resting = ""
        #: Since when it rests (time.monotonic).
        self.rested = 0.0
        #: Since when it and its clock stand still because it cannot write (`_now_ns`), or 0.
        self._stalled = 0
        #: When somebody last typed on its console (time.monotonic).
        self.typed = 0.0
        #: When somebody last did something in it, or saw something come of it (time.monotonic).
        self.used = 0.0
        #: What whoever sits at a terminal is told, in order.
        self.news: list[str] = []
        #: Who sits at a terminal now.
        self.seated: set[object] = set()
        #: Its memory is being written to the disk.
        self.saving = False
        #: Entered while a VMM is started for it: whether there is room, and whose turn it is.
        self.admitted: Callable[[], AbstractAsyncContextManager[None]] = _at_once
        #: Answers `bugbox check` typed in the guest.
        self.asked: Asked = _nobody
        #: Terminals that nobody is attached to, oldest first.
        self.detached: list[str] = []
        self._spawn = spawn
        self._changed = anyio.Event()
        self._coming_back: anyio.CancelScope | None = None
        #: Somebody said stop: there will be no other machine.
        self.over = False
        #: A machine is being made in place of one that is gone.
        self._replacing = False
        #: Terminals that a machine has which went back to a checkpoint, until it reboots.
        self.restored: frozenset[str] = frozenset()
        #: What those who wait for another machine are told; empty: it reboots.
        self.meanwhile = ""
        if machine is not None:
            self._take(machine)

    @property
    def id(self) -> str:
        """What people type."""
        return self.ledger.record.id

    @property
    def record(self) -> Record:
        """What is written down."""
        return self.ledger.record

    @property
    def state(self) -> str:
        """Where the machine is in its life; a failed boot counts as failed."""
        if self.over:
            return str(State.STOPPED)
        if self.machine is None:
            return str(State.BOOTING) if self._replacing else self.record.state
        return str(State.FAILED if self.trouble else self.machine.state)

    @property
    def reason(self) -> str:
        """Why it is not ready."""
        machine = self.machine.reason if self.machine else self.record.reason
        return self.trouble or self.standing or self.resting or machine

    def summary(self) -> dict[str, Any]:
        """Return the line that `ps` shows."""
        record = self.record
        return {
            "id": record.id,
            "puzzle": record.puzzle if record.folder else None,
            "state": self.state,
            "started": _iso(record.started),
            "driver": record.driver,
            "disk": record.disk,
            "memory_mib": self.plan.mem_mib,
            "reason": self.reason,
            "solved": record.solved_after > 0,
        }

    async def lifeline(self) -> Lifeline:
        """Return the agent, connected; wait for a boot under way, wake a machine that rests.

        StateError, MachineLost.
        """
        await self.wake()
        await self.settled()
        machine = self.machine
        if machine is None or machine.state in (State.OFF, State.FAILED, State.STOPPED):
            raise StateError(
                f"{self.id} is {self.state}" + (f": {self.reason}" if self.reason else ""),
                hint=f"bugbox resume {self.id}",
            )
        if machine.state in (State.PAUSED, State.STALLED):
            full = machine.state is State.STALLED
            why = self.standing or ("the host's disk is full" if full else "it was paused")
            raise StateError(f"{self.id} stands still: {why}", hint=f"bugbox resume {self.id}")
        if not machine.lifeline.connected:
            await self._reconnect(machine.lifeline)
        return machine.lifeline

    async def _reconnect(self, lifeline: Lifeline) -> None:
        try:
            await lifeline.connect(_RECONNECT_TIMEOUT * self.host.settings.timeout_factor)
        except GuestError as error:
            raise MachineLost(
                f"{self.id} no longer answers", hint=f"bugbox reset {self.id}"
            ) from error

    async def console(self) -> AsyncGenerator[bytes, None]:
        """Yield what the serial console says: the end of what it said first, then all to come."""
        if not self.plan.access.console:
            raise StateError(f"{self.id} gives no console: access.console in its puzzle.yaml")
        if self.saved:
            await self.wake()
        machine = self.machine
        if machine is None:
            raise StateError(f"{self.id} is {self.state}", hint=f"bugbox logs {self.id} --console")
        yield await in_thread(tail, self.ledger.paths.console, _CONSOLE_FIRST)
        with machine.console.follow() as follower:
            while (part := await follower.receive()) is not None:
                yield part

    async def type(self, data: bytes) -> None:
        """Type on the serial console. StateError when there is none."""
        self.typed = time.monotonic()
        await self.wake()
        machine = self.machine
        try:
            if machine is not None:
                await machine.console.write(data)
                return
        except OSError as error:
            log.info("%s: its console: %s", self.id, error)
        raise StateError(f"{self.id} has no console: it is {self.state}")

    async def hang_up(self, terminal: str) -> None:
        """End a shell that nobody is attached to."""
        if self.machine is not None and self.machine.lifeline.connected:
            await self.machine.lifeline.hangup(terminal)

    async def settled(self, timeout: float = _SETTLE_TIMEOUT) -> None:
        """Wait until the machine is not on its way from one state to another."""
        with anyio.move_on_after(timeout * self.host.settings.timeout_factor):
            while self._replacing or (
                self.machine and self.machine.state in _GOING and not self.trouble
            ):
                await self._changed.wait()

    async def changed(self, timeout: float) -> bool:
        """Wait for the next change of state; False when none came."""
        event = self._changed
        with anyio.move_on_after(timeout):
            await event.wait()
        return event.is_set()

    async def follow_up(self) -> None:
        """After adoption: go on where the last keeper was, or finish a boot that it did not see."""
        machine = self.machine
        if machine is None or machine.state not in (State.BOOTING, State.REBOOTING):
            return
        if self.record.state == State.READY:
            try:
                await machine.wait_lifeline()
            except GuestError as error:
                log.warning("%s: %s", self.id, error)
            hello = machine.lifeline.hello
            if hello is not None and hello.boot_id == self.record.guest_boot:
                await machine.reached(State.READY)
                self._wake()
                return
        await self._come_back()

    async def reset(self, plan: Plan, parts: Prepared, bring: Bring = bring_up) -> dict[str, Any]:
        """Throw the disk away and take a fresh machine, of the puzzle as it is now."""
        watch = Stopwatch()

        async def boot() -> Machine:
            # Not before: the checks of a machine are those of the puzzle that it was made of.
            self.plan = plan
            await in_thread(discard, self.ledger.paths)
            return await bring(self.ledger, plan, parts, self.host, watch)

        async with self.change():
            self.require_time()
            await self.replace(boot)
            await in_thread(self.ledger.write, solved_after=0.0, passed=(), points=None)
        return {
            "id": self.id,
            "state": self.state,
            "clone": bool(self.record.template),
            "timings_ms": watch.as_ms(),
        }

    async def resume(self, *, cold: bool = False) -> dict[str, Any]:
        """Let it run on, or boot it again on the same disk; with `cold` that in any case.

        StateError when it runs and should be booted `cold`.
        """
        watch = Stopwatch()
        async with self.change():
            if cold and self.machine is not None and self.machine.state is State.READY:
                raise StateError(f"{self.id} runs", hint=f"bugbox pause {self.id} first")
            await self._more_time()
            await (self._boot_again(watch) if cold else self._resume(watch))
        return {"id": self.id, "state": self.state, "clone": False, "timings_ms": watch.as_ms()}

    @property
    def saved(self) -> bool:
        """Whether its memory lies on the disk, and nothing of it runs."""
        return self.machine is None and not self._replacing and self.record.state == SAVED

    async def pause(self, why: str = PAUSED, *, save: bool = False) -> dict[str, Any]:
        """Let it stand still until somebody uses it; with `save` its memory goes to the disk.

        StateError where its puzzle forbids that, OutOfResources without room: then it runs on.
        """
        if not self.plan.pausable:
            raise StateError(
                f"{self.id} may not be paused: its puzzle says so",
                hint="session.pausable in its puzzle.yaml; bugbox stop ends it",
            )
        async with self.change():
            if save and not self.saved:
                await self._save(why)
            elif not self.saved:
                await self._pause(why)
        return {"id": self.id, "state": self.state}

    async def _save(self, why: str) -> None:
        self.saving = True
        ran = self.machine is not None and self.machine.state is State.READY
        try:
            await self._pause(why)
            machine = self.machine
            assert machine is not None

            async def end() -> None:
                self.machine, self.resting = None, ""
                self._wake()
                await machine.stop(0.0)

            await save(self.ledger, machine, self.host, why, end)
        except BaseException:
            with anyio.CancelScope(shield=True):
                if ran and self.machine is not None and self.machine.state is State.PAUSED:
                    await self._run_on(self.machine)
            raise
        finally:
            self.saving = False
            self._spawn(self._write_state)
            self._wake()

    @property
    def time_is_up(self) -> bool:
        """Whether it has no more time, where limits bind."""
        if not bind(self.host.settings):
            return False
        end = ends_at(self.plan, self.record)
        return end is not None and time.time() >= end

    def require_time(self) -> None:
        """Raise StateError when its time is over."""
        if self.time_is_up:
            raise self._no_time()

    async def expire(self) -> None:
        """Let it stand still because its time is over, until it is given more."""
        if self.standing == OVER or self._ending or self.saved:
            return
        async with self.change():
            if not self.time_is_up:
                return
            if self.resting:
                self.standing, self.resting = OVER, ""
                await self._write_state()
                self._wake()
            elif self.machine is not None and self.machine.state is State.READY:
                await self._pause(OVER, stand=True)

    async def _more_time(self) -> None:
        """Give it as much more as its puzzle allows; StateError when that is none."""
        if not self.time_is_up:
            return
        until = extended(self.plan, self.record, time.time())
        if until is None:
            raise self._no_time()
        await in_thread(self.ledger.write, until=until)

    def _no_time(self) -> StateError:
        more = extended(self.plan, self.record, time.time()) is not None
        way = "resume {} gives it more" if more else "stop {} ends it"
        return StateError(f"{self.id}: {OVER}", hint=f"bugbox {way.format(self.id)}")

    async def _pause(self, why: str, *, stand: bool = False) -> None:
        machine = self.machine
        if machine is not None and machine.state is State.PAUSED:
            return
        if machine is None or machine.state is not State.READY or self.trouble:
            raise StateError(f"{self.id} is {self.state}: only a machine that runs can be paused")
        await self.note_clock()
        # First: whoever is told of the new state is told why.
        if stand:
            self.standing = why
        else:
            self.resting, self.rested = why, time.monotonic()
        try:
            with anyio.CancelScope(shield=True):
                await machine.pause()
        except BaseException:
            self.resting = self.standing = ""
            raise

    async def note_clock(self) -> None:
        """Write down how wrong its clock is: paused, it stands still, and is put right after."""
        offset: int | None = None
        limit = _CLOCK_TIMEOUT * self.host.settings.timeout_factor
        if self.machine is not None and self.machine.lifeline.connected:
            with anyio.move_on_after(limit), contextlib.suppress(GuestError):
                offset = await clock_offset(self.machine.lifeline)
        try:
            await in_thread(self.ledger.write, sync=False, clock_offset_ns=offset)
        except OSError as error:  # a full disk must not keep a machine from being paused
            log.warning("%s: its clock is not written down: %s", self.id, error)

    async def wake(self) -> None:
        """Let a machine that rests run on, with the right time; nothing where it does not rest."""
        if (self.resting or self.saved) and not self._ending and not self.over:
            self.require_time()
            async with self.change():
                if (self.resting or self.saved) and not self.over:
                    await self._resume(Stopwatch())

    def tell(self, text: str) -> None:
        """Tell everybody who sits at a terminal."""
        self.news.append(text)
        self._wake()

    def _stirred(self) -> None:
        """Something was sent to a machine that stands still."""
        if self.resting and not self.time_is_up:
            self._spawn(self.wake)

    async def _run_on(self, machine: Machine) -> None:
        """Let a machine run that stood still; its clock goes on from now, not from then."""
        paused = machine.state is State.PAUSED
        self.standing = ""
        await machine.resume()
        with anyio.CancelScope(shield=True):
            if paused:
                await self._right_clock(machine)
            elif self._stalled:
                await self._make_up(machine)
            # Not before: who comes in meanwhile waits for the clock as well.
            self.resting = ""
            await self._write_state()

    async def _right_clock(self, machine: Machine) -> None:
        if self.record.clock_offset_ns is not None:
            await self.put_clock(machine, self.record.clock_offset_ns)

    async def put_clock(self, machine: Machine, offset_ns: int) -> None:
        """Set the clock of a machine that runs again to the host's and so much more; or say why."""
        limit = _CLOCK_TIMEOUT * self.host.settings.timeout_factor
        try:
            with anyio.fail_after(limit):
                await machine.wait_lifeline()
                await set_clock(machine.lifeline, offset_ns)
        except (BugboxError, TimeoutError) as error:
            log.warning("%s: its clock was not put right: %s", self.id, error)

    async def _make_up(self, machine: Machine) -> None:
        """Give a clock the time that it lost while the machine could not write."""
        lost, self._stalled = _now_ns() - self._stalled, 0
        if machine.state is not State.READY or not machine.lifeline.connected:
            return  # its boot sets it
        try:
            with anyio.fail_after(_CLOCK_TIMEOUT * self.host.settings.timeout_factor):
                await set_clock(machine.lifeline, await clock_offset(machine.lifeline, lost))
        except (BugboxError, TimeoutError) as error:
            log.warning("%s: its clock was not put right: %s", self.id, error)

    async def _resume(self, watch: Stopwatch) -> None:
        machine = self.machine
        if machine is not None and machine.state in (State.PAUSED, State.STALLED):
            await self._run_on(machine)
        elif machine is not None and machine.state is State.READY and not self.trouble:
            pass
        elif machine is not None and machine.process.alive:
            await machine.reset()
            await self._follow(watch)
            if self.trouble:
                raise GuestError(self.trouble, hint=f"bugbox reset {self.id}")
        elif self.saved:
            async with self.admitted():
                with watch.stage("load"):
                    self._take(await load(self.ledger, self.host))
            assert self.machine is not None
            with watch.stage("resume"):
                await self._run_on(self.machine)
        else:
            await self._boot_again(watch)

    async def _boot_again(self, watch: Stopwatch) -> None:
        async with self.admitted():
            await self.replace(lambda: boot_same_disk(self.ledger, self.plan, self.host, watch))

    @asynccontextmanager
    async def change(self) -> AsyncIterator[None]:
        """Change the machine, nobody else meanwhile. StateError when a stop comes between."""
        async with self.changing:
            if not self._ending:
                with anyio.CancelScope() as self._change:
                    try:
                        yield
                        return
                    finally:
                        self._change = None
        raise StateError(f"{self.id} is being stopped")

    async def stop(self) -> None:
        """End it and remove all of it. Once begun it is finished; every step has its limit."""
        self._ending = True
        try:
            if self._change is not None:
                self._change.cancel()
            async with self.changing:
                with anyio.CancelScope(shield=True):
                    ours = await in_thread(give_back_soon, self.ledger)
                    self.over = True
                    self._wake()
                    if ours:
                        await self._end_machine()
                        await in_thread(give_back, self.ledger)
                self._wake()
        finally:
            self._ending = False

    async def release(self) -> None:
        """Let go of the machine without ending it: another process may adopt it."""
        if self._coming_back:
            self._coming_back.cancel()
        try:
            if self.machine is not None:
                await self.machine.release()
        finally:
            await in_thread(self.ledger.close)

    async def replace(self, boot: Callable[[], Awaitable[Machine]], meanwhile: str = "") -> None:
        """End the machine and take another; whoever sits at a terminal waits for it.

        The caller holds `change()`.
        """
        self._replacing = True
        self.restored, self.meanwhile = frozenset(), meanwhile
        self._wake()
        try:
            # Half-ended, it would be nobody's: its sockets stay open, and QEMU may live.
            with anyio.CancelScope(shield=True):
                await self._end_machine()
            self._take(await boot())
            self._spawn(self._write_state)
        except BaseException as error:
            reason = error.message if isinstance(error, BugboxError) else "interrupted"
            with anyio.CancelScope(shield=True):
                await in_thread(self.ledger.write, state=str(State.FAILED), reason=reason)
            raise
        finally:
            self._replacing = False
            self._wake()

    async def _follow(self, watch: Stopwatch) -> None:
        """Come back in the background, so that a boot has an end although nobody waits for it."""
        done = anyio.Event()

        async def follow() -> None:
            try:
                await self._come_back(watch)
            finally:
                done.set()

        self._spawn(follow)
        await done.wait()

    async def _end_machine(self) -> None:
        if self._coming_back:
            self._coming_back.cancel()
        machine, self.machine, self.trouble, self.resting = self.machine, None, "", ""
        if machine is not None:
            await machine.stop(0.0)
        if self.record.saved:
            await in_thread(drop, self.ledger)
        await in_thread(end_vmm, self.ledger.paths, self.record.process)

    def _take(self, machine: Machine) -> None:
        self.machine = machine
        self._stalled = 0
        self.trouble = self.standing = ""
        # One that its last keeper paused: whoever uses it lets it run on.
        paused = machine.state is State.PAUSED
        if paused and self.time_is_up:
            self.standing, paused = OVER, False
        self.resting = (self.record.reason or PAUSED) if paused else ""
        machine.watch(self._on_state)
        machine.lifeline.on_stirred = self._stirred
        machine.lifeline.on_ask = lambda verb, args: self.asked(verb, args)

    def _on_state(self, state: State) -> None:
        if state is State.STALLED and not self._stalled:
            self._stalled = _now_ns()
        if state is State.REBOOTING:
            self._stalled = 0
            self.trouble = self.meanwhile = ""
            self.restored = frozenset()
            self._spawn(self._come_back)
        self._spawn(self._write_state)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _write_state(self) -> None:
        """Write down how it is when its turn has come: of two writers the later one is right."""

        def now(record: Record) -> dict[str, Any] | None:
            changed = (record.state, record.reason) != (self.state, self.reason)
            # While it is saved, what is written is for saving to say.
            if record.phase is not Phase.HANDED_OVER or not changed or self.saving:
                return None
            return {"state": self.state, "reason": self.reason}

        try:
            await in_thread(self.ledger.update, now)
        except (OSError, StateError) as error:  # a full disk, or let go of
            log.warning("%s: its state is not written down: %s", self.id, error)

    async def _come_back(self, watch: Stopwatch | None = None) -> None:
        """Follow a guest's reboot until it is ready again, or say why it is not."""
        machine = self.machine
        if machine is None:
            return
        if self._coming_back:
            self._coming_back.cancel()
        self.trouble = ""
        with anyio.CancelScope() as scope:
            self._coming_back = scope
            try:
                await make_ready(
                    machine,
                    self.ledger,
                    self.plan,
                    self.host.settings,
                    watch or Stopwatch(),
                    new=self.record.fresh,
                )
                await self._write_state()
            except Exception as error:
                log.warning("%s did not come back", self.id, exc_info=error)
                if machine is self.machine:
                    self.trouble = _why(error)
                    await self._write_state()
            finally:
                if self._coming_back is scope:
                    self._coming_back = None
                self._wake()


def _why(error: Exception) -> str:
    return error.message if isinstance(error, BugboxError) else f"{type(error).__name__}: {error}"


@asynccontextmanager
async def _at_once() -> AsyncIterator[None]:
    yield


async def _nobody(verb: str, args: list[str]) -> tuple[bytes, int]:
    return b"Nobody is there to answer.\n", 75


def _now_ns() -> int:
    """Return a time of the host that goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _iso(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
