# SPDX-License-Identifier: Apache-2.0
"""Whether one more machine fits into this host's memory, and what gives way so that it does.

A machine that runs may come to take all the memory it was promised, so what it does not use yet is
spoken for. One that is paused takes no more than it has. What is left of the host's available
memory, less a reserve, can be given. When that is not enough for a start:

    standby clones of other puzzles are ended, then machines that nobody uses are paused, then
    paused ones are put onto the disk; then the start is refused, with the numbers. None is ended.

Starts also take turns: so many boot at a time as the host has CPUs, the others wait in a queue.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import anyio

from bugbox.config import Settings
from bugbox.errors import BugboxError, OutOfResources
from bugbox.events import notice
from bugbox.host import room
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.state import State
from bugbox.session.plan import Plan
from bugbox.session.pool import Pool
from bugbox.session.session import Session

__all__ = ["Account", "Admission", "need_of"]

log = logging.getLogger(__name__)

#: MiB that a VMM takes beside its guest's memory: 91 were seen, 64 of them translated code.
VMM_MIB = 112
#: Seconds without use after which a machine is paused to make room for another.
_IDLE_ENOUGH = 30.0
#: Seconds between two looks at the host's memory.
_EVERY = 5.0
_GIVES_WAY = frozenset({State.PAUSED, State.OFF, State.FAILED, State.STOPPED})


def need_of(plan: Plan) -> int:
    """Return how many MiB a machine of `plan` may come to take."""
    return plan.mem_mib + VMM_MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The host's memory in MiB, and who speaks for it."""

    total: int
    available: int
    #: To be left free.
    reserve: int
    #: Machines that run: how many, what they use, and what more they may take.
    running: int = 0
    running_use: int = 0
    claimed: int = 0
    #: Machines that are paused.
    resting: int = 0
    resting_use: int = 0
    #: Starts under way may come to take so much.
    promised: int = 0

    @property
    def free(self) -> int:
        """What can be given to one more."""
        return self.available - self.reserve - self.claimed - self.promised

    def lines(self) -> list[str]:
        """Say it for people."""
        said = [
            f"{self.available} MiB of the host's {self.total} MiB are available",
            f"{self.reserve} MiB are kept free (setting memory_reserve)",
        ]
        if self.running:
            said.append(
                f"{_use(self.running, 'runs', 'run')} {self.running_use} MiB"
                f" and may take {self.claimed} MiB more"
            )
        if self.resting:
            said.append(f"{_use(self.resting, 'is paused', 'are paused')} {self.resting_use} MiB")
        if self.promised:
            said.append(f"starts under way may take {self.promised} MiB")
        return said


class Admission:
    """Decides for one keeper."""

    def __init__(
        self,
        settings: Settings,
        sessions: Callable[[], Iterable[Session]],
        pool: Pool,
        idle: Callable[[Session], float],
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._pool = pool
        self._idle = idle
        self._promised = 0
        #: Sessions that could not be saved.
        self._unsaved: set[str] = set()
        self._deciding = anyio.Lock()
        self._turns = anyio.CapacityLimiter(max(2, os.cpu_count() or 1))

    @asynccontextmanager
    async def admitted(self, plan: Plan, *, standby: bool = False) -> AsyncIterator[None]:
        """Hold room for a machine of `plan` until it counts itself; OutOfResources: there is none.

        `standby`: one that stands by may be claimed, whose memory is taken already.
        """
        async with self._deciding:
            need = need_of(plan) - (self._pool.memory_of(plan) if standby else 0)
            account = await self._account(enough=need)
            if account.free < need:
                account = await self._make_room(need, plan if standby else None)
            if account.free < need:
                raise _refusal(plan, need, account)
            self._promised += need
        try:
            yield
        finally:
            self._promised -= need

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn to boot."""
        busy = self._turns.statistics()
        if busy.borrowed_tokens >= busy.total_tokens:
            before = busy.borrowed_tokens + busy.tasks_waiting
            notice(f"{before} starts are under way; this one waits for its turn")
        mine = object()  # one task may hold two: who forks a machine may have to load it first
        await self._turns.acquire_on_behalf_of(mine)
        try:
            yield
        finally:
            self._turns.release_on_behalf_of(mine)

    @asynccontextmanager
    async def boots(self, plan: Plan) -> AsyncIterator[None]:
        """Hold room for a machine of `plan`, in one's turn."""
        async with self.admitted(plan), self.turn():
            yield

    async def spare(self, mib: int) -> bool:
        """Whether so much is left for what nobody waits for: a template, a standby."""
        return (await self._account(enough=mib)).free >= mib

    async def fits(self, plan: Plan) -> bool:
        """Whether one more machine of `plan` fits as it is."""
        return await self.spare(need_of(plan))

    async def fit(self, plan: Plan) -> dict[str, Any]:
        """Tell how many more machines of `plan` fit, and why."""
        account, need = await self._account(), need_of(plan)
        standbys = self._pool.memory
        return {
            "name": plan.name,
            "fits": max(0, account.free + standbys) // need,
            "each_mib": need,
            "memory_mib": plan.mem_mib,
            "vmm_mib": VMM_MIB,
            "standby_mib": standbys,
            "host": asdict(account) | {"free": account.free},
            "why": account.lines(),
        }

    async def _make_room(self, need: int, own: Plan | None) -> Account:
        """Let give way who may until `need` is there, or nobody is left who may."""
        while (account := await self._account()).free < need:
            if not (
                await self._pool.give_way(own) or await self._pause_one() or await self._save_one()
            ):
                break
        return account

    async def relieve(self) -> bool:
        """Give the host memory back when it has less than the reserve; whether that was so."""
        if (await in_thread(room.memory)).available >> 20 >= self._settings.memory_reserve:
            return False
        async with self._deciding:
            log.warning("the host is short of memory")
            await self._pool.give_way(None) or await self._save_one() or await self._pause_one()
        return True

    async def watch(self) -> None:
        """Relieve the host for ever, a step at a time."""
        while True:
            await anyio.sleep(_EVERY)
            await self.relieve()

    async def _save_one(self) -> bool:
        """Put the machine that has been paused for longest onto the disk; False: there is none."""
        resting = [s for s in self._sessions() if s.resting and _may_be_saved(s)]
        for session in sorted(resting, key=lambda session: session.rested):
            if session.id in self._unsaved:
                continue
            try:
                await session.pause("its memory was needed for another machine", save=True)
                log.info("%s is on the disk: its memory was needed", session.id)
                return True
            except (BugboxError, OSError) as error:
                # Not tried again at every start: its disk is full, or its VMM cannot.
                self._unsaved.add(session.id)
                log.warning("%s could not be saved: %s", session.id, error)
        return False

    async def _pause_one(self) -> bool:
        """Pause the machine that nobody has used for longest; False when there is none."""
        if not self._settings.idle_pause:
            return False
        idle = [(self._idle(session), session) for session in self._sessions()]
        idle = [each for each in idle if each[0] >= _IDLE_ENOUGH and each[1].plan.pausable]
        for _, session in sorted(idle, key=lambda each: -each[0]):
            try:
                await session.pause("nobody used it, and another machine needed room")
                return True
            except (BugboxError, OSError) as error:
                log.warning("%s could not be paused: %s", session.id, error)
        return False

    async def _account(self, enough: int = 0) -> Account:
        """Look at the host and at all machines; not at each when `enough` is there anyway."""
        host = await in_thread(room.memory)
        running: list[tuple[Process, int]] = []
        resting: list[tuple[Process, int]] = []
        for session in self._sessions():
            machine = session.machine
            if machine is not None and machine.process.alive:
                kind = resting if machine.state in _GIVES_WAY else running
                kind.append((machine.process, need_of(session.plan)))
        account = Account(
            total=host.total >> 20,
            available=host.available >> 20,
            reserve=self._settings.memory_reserve,
            running=len(running),
            claimed=sum(need for _, need in running),
            resting=len(resting),
            promised=self._promised,
        )
        if enough and account.free >= enough:
            return account

        uses = await in_thread(_used, running)
        return replace(
            account,
            running_use=sum(uses),
            claimed=sum(max(0, need - use) for (_, need), use in zip(running, uses, strict=True)),
            resting_use=sum(await in_thread(_used, resting)),
        )


def _may_be_saved(session: Session) -> bool:
    """Nobody is at it, and no forwarded connection would end with its VMM."""
    machine = session.machine
    return machine is not None and not session.changing.locked() and not machine.lifeline.dialled


def _used(machines: list[tuple[Process, int]]) -> list[int]:
    return [process.private_mib() for process, _ in machines]


def _refusal(plan: Plan, need: int, account: Account) -> OutOfResources:
    return OutOfResources(
        f"{plan.name} does not fit: it may take {need} MiB of memory, and "
        f"{max(0, account.free)} MiB can be given",
        detail="\n".join(account.lines()),
        hint="bugbox ps shows the machines: stop ends one, pause --save puts one onto the disk",
    )


def _use(count: int, one: str, many: str) -> str:
    return f"1 machine that {one} uses" if count == 1 else f"{count} machines that {many} use"
