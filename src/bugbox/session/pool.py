# SPDX-License-Identifier: Apache-2.0
"""Standby clones: ready before anybody asks, paused until somebody does.

    fill    a session's record (still MAKING: whoever finds our dead body gives it back), a clone
            with an identity of its own, session.sh, the paths of a first command, a login and a
            check walked once, a login that waits at its prompt; then its CPUs are stopped
    claim   CPUs on, fresh entropy, then an answer from that login and the right time; then handed
            over

A puzzle gets them once it was started here. They are made one at a time, while nobody waits for a
start; they count as nobody's sessions, and go when the keeper does or `gc` asks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

import anyio

from bugbox.config import Settings
from bugbox.errors import BugboxError, GuestError, HostError
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.driver import Machine
from bugbox.machine.lifeline.shell import Terminal
from bugbox.session.clone import boot_of, clone_up
from bugbox.session.cloning import Cloning
from bugbox.session.identity import refresh
from bugbox.session.plan import Plan, another
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host, open_record, way_of
from bugbox.session.ready import answer, hang_up, sit_down
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, Phase
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.template import Adopted

__all__ = ["Pool"]

log = logging.getLogger(__name__)

_Step = Coroutine[Any, Any, None]

#: Seconds without a start before the next standby is made.
_QUIET_SECONDS = 1.0
#: Seconds that one may take to be there again after it stood still.
_WAKE_TIMEOUT = 5.0
#: What a check does first, whatever it asks.
_WARM_SCRIPT = b"set -- $(ls /etc | head -n 3); [ -e /etc/passwd ] && grep -q root /etc/passwd\n"
_WARM_COMMAND = ("sh", "-c", "id -un; ls / >/dev/null; cat /etc/hostname")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """What was started, and so may be again."""

    plan: Plan
    parts: Prepared
    host: Host
    when: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standby:
    key: str
    ledger: Ledger
    machine: Machine
    plan: Plan
    host: Host
    of: Adopted
    login: Terminal
    #: MiB that it has for itself.
    memory: int


class Pool:
    """The standby clones of one keeper."""

    def __init__(
        self,
        settings: Settings,
        cloning: Cloning,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        #: Whether the host has room for one more of these machines.
        self.fits: Callable[[Plan], Awaitable[bool]] = _always
        self._settings = settings
        self._cloning = cloning
        self._spawn = spawn
        #: By the template's key, the one started last at the end.
        self._uses: dict[str, _Use] = {}
        self._ready: list[_Standby] = []
        self._filling = False
        self._closed = False
        self._starts = 0
        self._last_start = 0.0

    @property
    def ids(self) -> set[str]:
        """Which wait; they are nobody's sessions yet."""
        return {standby.ledger.record.id for standby in self._ready}

    async def claim(
        self, plan: Plan, parts: Prepared, host: Host, watch: Stopwatch
    ) -> tuple[Ledger, Machine, Plan] | None:
        """Hand over a standby of this machine, with the random variants that it has drawn.

        None when there is none.
        """
        if plan.carried or way_of(parts, host) != "qcow2":
            return None
        self._starts += 1
        try:
            with watch.stage("template"):
                of = await self._cloning.at_hand(plan, parts, host)
            while of is not None and (standby := self._take(of.stored.manifest.key)):
                try:
                    return await self._hand_over(standby, watch)
                except (BugboxError, OSError) as error:
                    log.warning("standby %s: %s", standby.ledger.record.id, error)
                    await self._give_back(standby)
                except BaseException:
                    await self._give_back(standby)
                    raise
            return None
        finally:
            self._starts -= 1
            self._last_start = anyio.current_time()

    @property
    def memory(self) -> int:
        """MiB that all of them have for themselves."""
        return sum(standby.memory for standby in self._ready)

    def memory_of(self, plan: Plan) -> int:
        """Return the MiB of one that a start of `plan` would claim; 0: there is none."""
        return max((each.memory for each in self._ready if _same(each.plan, plan)), default=0)

    async def give_way(self, but: Plan | None) -> bool:
        """End the one whose puzzle was started longest ago, but none of `but`; False: none left.

        It comes back with the next start of its puzzle.
        """
        order = [*self._uses]
        may = [each for each in self._ready if but is None or not _same(each.plan, but)]
        if not may:
            return False
        oldest = min(may, key=lambda each: order.index(each.key) if each.key in order else -1)
        self._ready.remove(oldest)
        self._uses.pop(oldest.key, None)
        await self._give_back(oldest)
        return True

    def used(self, plan: Plan, parts: Prepared, host: Host, key: str) -> None:
        """Remember that this was started, and see to the next one in the background."""
        self._uses.pop(key, None)
        self._uses[key] = _Use(plan=plan, parts=parts, host=host, when=time.monotonic())
        if not self._filling and not self._closed:
            self._filling = True
            self._spawn(self._fill)

    async def drain(self) -> list[str]:
        """End all of them; return their ids. They come back with the next start."""
        self._uses.clear()
        gone, self._ready = self._ready, []
        for standby in gone:
            await self._give_back(standby)
        return [standby.ledger.record.id for standby in gone]

    async def aclose(self) -> None:
        """End all of them for good."""
        self._closed = True
        await self.drain()

    def _take(self, key: str) -> _Standby | None:
        for standby in self._ready:
            if standby.key == key:
                self._ready.remove(standby)
                return standby
        return None

    async def _hand_over(self, standby: _Standby, watch: Stopwatch) -> tuple[Ledger, Machine, Plan]:
        ledger, machine = standby.ledger, standby.machine
        factor = standby.host.settings.timeout_factor
        try:
            with anyio.fail_after(_WAKE_TIMEOUT * factor):
                with watch.stage("resume"):
                    await machine.resume()
                # The entropy is on its way before what is typed; the time follows while the shell
                # reads that.
                await _both(
                    lambda: self._refresh(standby, watch), lambda: self._answer(standby, watch)
                )
        except TimeoutError:
            raise GuestError("a standby did not wake up in time") from None
        with watch.stage("record"):
            # What dies with the host need not outlive it: its disk is empty so far.
            await in_thread(
                ledger.write,
                sync=False,
                phase=Phase.HANDED_OVER,
                started=time.time(),
                timings_ms=watch.as_ms(),
            )
        self._spawn(lambda: hang_up(machine.lifeline, standby.login))
        return ledger, machine, standby.plan

    async def _refresh(self, standby: _Standby, watch: Stopwatch) -> None:
        with watch.stage("identity"):
            offset = standby.of.stored.manifest.clock_offset_ns
            await refresh(standby.machine.lifeline, offset)

    async def _answer(self, standby: _Standby, watch: Stopwatch) -> None:
        boot = boot_of(standby.machine, standby.ledger, standby.plan, standby.host)
        with watch.stage("login"):
            await answer(boot, standby.login)

    async def _give_back(self, standby: _Standby) -> None:
        async def undo() -> None:
            with suppress(BugboxError):
                await standby.machine.stop(0.0)
            await in_thread(give_back, standby.ledger)

        await shielded(undo)

    # Filling.

    async def _fill(self) -> None:
        """Make what is missing, one after another, while nobody waits for a start."""
        try:
            while not self._closed and (key := self._missing()) is not None:
                if self._starts or anyio.current_time() - self._last_start < _QUIET_SECONDS:
                    await anyio.sleep(_QUIET_SECONDS / 4)
                    continue
                if not await self._fill_one(key):
                    self._uses.pop(key, None)
        finally:
            self._filling = False

    def _missing(self) -> str | None:
        """Return the key of which one more is wanted; the puzzle started last comes first."""
        room = self._settings.standby_most
        memory = self._settings.standby_memory - sum(each.memory for each in self._ready)
        for key in reversed(self._uses):
            have = sum(each.key == key for each in self._ready)
            wanted = min(self._settings.standby, room)
            if have < wanted:
                full = len(self._ready) >= self._settings.standby_most
                return key if (memory > 0 and not full) or self._evict(key) else None
            room -= wanted
        return None

    def _evict(self, key: str) -> bool:
        """Let the standby go whose puzzle was started longest ago, for one of `key`."""
        order = [*self._uses]
        rank = {name: at for at, name in enumerate(order)}
        oldest = min(self._ready, key=lambda each: rank.get(each.key, -1), default=None)
        if oldest is None or rank.get(oldest.key, -1) >= rank[key]:
            return False
        self._ready.remove(oldest)
        self._spawn(lambda: self._give_back(oldest))
        return True

    async def _fill_one(self, key: str) -> bool:
        use = self._uses[key]
        of = await self._cloning.at_hand(use.plan, use.parts, use.host)
        if of is None or of.stored.manifest.key != key or not await self.fits(use.plan):
            return False
        try:
            standby = await self._make(use, of)
        except (GuestError, HostError) as error:
            await self._cloning.failed(of, error)
            return False
        except BugboxError as error:
            log.warning("no standby of %s: %s", use.plan.name, error)
            return False
        if self._closed or key not in self._uses:
            await self._give_back(standby)
            return False
        self._ready.append(standby)
        log.info("%s stands by, with %d MiB", standby.ledger.record.id, standby.memory)
        return True

    async def _make(self, use: _Use, of: Adopted) -> _Standby:
        async with AsyncExitStack() as undo:
            plan = another(use.plan)
            ledger = await in_thread(open_record, plan, use.parts, use.host)
            undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
            machine = await clone_up(ledger, plan, use.parts, use.host, Stopwatch(), of)
            undo.push_async_callback(shielded, lambda: machine.stop(0.0))
            login = await _warm(machine, ledger, use, of)
            await machine.pause()
            memory = await in_thread(machine.process.private_mib)
            undo.pop_all()
        return _Standby(
            key=of.stored.manifest.key,
            ledger=ledger,
            machine=machine,
            plan=plan,
            host=use.host,
            of=of,
            login=login,
            memory=memory,
        )


async def _always(plan: Plan) -> bool:
    return True


def _same(one: Plan, other: Plan) -> bool:
    return (one.name, one.folder) == (other.name, other.folder)


async def _both(one: Callable[[], _Step], other: Callable[[], _Step]) -> None:
    """Do both at once; when one fails the other has ended too before that error is raised."""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(other)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _warm(machine: Machine, ledger: Ledger, use: _Use, of: Adopted) -> Terminal:
    """Walk what a learner walks first; return a login that waits at its prompt."""
    lifeline, boot = machine.lifeline, boot_of(machine, ledger, use.plan, use.host)
    await lifeline.run(_WARM_COMMAND, user=use.plan.user)
    await lifeline.script(_WARM_SCRIPT, "warm")
    # What the claim will do, once before: the second time it is translated already.
    await answer(boot, await sit_down(boot, use.plan.user))
    await refresh(lifeline, of.stored.manifest.clock_offset_ns)
    return await sit_down(boot, use.plan.user)
