# SPDX-License-Identifier: Apache-2.0
"""One machine of a test: made for one question, and thrown away or kept to be looked at.

Its record says `making` for as long as the test has it, so that whatever happens to us the reaper
takes it back. One that is kept is handed over: the keeper adopts it like any other session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio

from bugbox.errors import BootFailed, GuestError
from bugbox.host.bridge import in_thread, shielded
from bugbox.machine.lifeline.shell import Result
from bugbox.machine.state import State
from bugbox.puzzle import tree
from bugbox.puzzle.check import Report
from bugbox.puzzle.definition import Puzzle, Script
from bugbox.puzzle.script import as_typed
from bugbox.session.attempt import verdict
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Bring, Host, make_ready, open_record, power_on
from bugbox.session.reaper import give_back
from bugbox.session.record import Ledger, Phase
from bugbox.session.session import Session
from bugbox.session.stopwatch import Stopwatch

__all__ = ["Trial", "trial"]

log = logging.getLogger(__name__)

#: Seconds that a solution, or what is none, may take.
_TYPED_TIMEOUT = 300.0
#: Seconds beyond a boot's own limit that a guest may take to go down.
_GOING_DOWN = 90.0
_TREE_TIMEOUT = 120.0
#: A list of half a million files; what a hostile guest may send.
_TREE_LIMIT = 64 << 20
_OUTPUT_LIMIT = 64 << 10


class Trial:
    """A machine that is ready, and what a test does with it."""

    def __init__(self, session: Session, puzzle: Puzzle, watch: Stopwatch) -> None:
        self.session = session
        self.puzzle = puzzle
        self.watch = watch
        #: Keep the machine at the end.
        self.keep = False

    @property
    def id(self) -> str:
        """The session's id."""
        return self.session.id

    @property
    def _factor(self) -> float:
        return self.session.host.settings.timeout_factor

    async def typed(self, script: Script) -> Result:
        """Run a script as the learner would: with the guest's shell, in the learner's name."""
        lifeline = await self.session.lifeline()
        return await lifeline.run(
            as_typed(script),
            user=self.session.plan.user,
            env=self.session.plan.env,
            timeout=_TYPED_TIMEOUT * self._factor,
            limit=_OUTPUT_LIMIT,
        )

    async def check(self) -> Report:
        """Run the checks; nothing is remembered of it."""
        return await verdict(self.session, self.puzzle)

    async def tree(self) -> tree.Tree:
        """Return what lies on the machine's disks."""
        lifeline = await self.session.lifeline()
        timeout = _TREE_TIMEOUT * self._factor
        result = await lifeline.script(tree.script(), "tree.sh", timeout=timeout, limit=_TREE_LIMIT)
        if result.code != 0 or result.truncated:
            why = "too long" if result.truncated else f"status {result.code}"
            raise GuestError(f"the machine's files could not be listed: {why}")
        return tree.parse(result.stdout)

    async def reboot(self) -> None:
        """Reboot as the learner would, and wait until it is ready again; BootFailed."""
        session = self.session
        lifeline = await session.lifeline()
        before = lifeline.hello.boot_id if lifeline.hello else ""
        await lifeline.shutdown("reboot")
        limit = (session.plan.boot_timeout + _GOING_DOWN) * self._factor
        with anyio.move_on_after(limit):
            while not session.trouble:
                hello = lifeline.hello
                if session.state == State.READY and hello and hello.boot_id != before:
                    return
                await session.changed(1.0)
        raise BootFailed(f"it did not come back: {session.trouble or session.state}")


@asynccontextmanager
async def trial(
    plan: Plan,
    parts: Prepared,
    host: Host,
    *,
    keep_unready: Callable[[str], None] | None,
    bring: Bring | None = None,
) -> AsyncIterator[Trial]:
    """Make a machine and take it back; with `trial.keep` set, leave it to the keeper.

    `bring` makes it ready in its own way; without, it is booted.

    One that boots and does not become ready raises BootFailed. With `keep_unready` it is then kept
    too, and its id passed on.
    """
    assert plan.puzzle is not None
    watch = Stopwatch()
    beside = _Beside()
    async with AsyncExitStack() as undo:
        ledger = await in_thread(open_record, plan, parts, host)
        undo.push_async_callback(shielded, lambda: in_thread(give_back, ledger))
        start = bring or power_on
        machine = await start(ledger, plan, parts, host, watch)
        session = Session(ledger, plan, host, machine, beside.spawn)
        undo.pop_all()
        made = Trial(session, plan.puzzle, watch)
        try:
            try:
                if bring is None:
                    await make_ready(machine, ledger, plan, host.settings, watch, new=True)
            except BootFailed:
                if keep_unready is not None:
                    made.keep = True
                    keep_unready(ledger.record.id)
                raise
            yield made
        finally:
            with anyio.CancelScope(shield=True):
                await beside.end()
                await (_hand_over(session) if made.keep else session.stop())


class _Beside:
    """Runs a session's own tasks beside the test; one that fails fails alone."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start one."""

        async def guarded() -> None:
            try:
                await task()
            except Exception:
                log.exception("a background task failed")

        running = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Cancel them all and wait for their end."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hand_over(session: Session) -> None:
    """Leave the machine running, for whoever asks for a shell in it."""
    ledger: Ledger = session.ledger
    machine = session.machine
    hello = machine.lifeline.hello if machine and machine.lifeline.connected else None
    await in_thread(
        ledger.write,
        phase=Phase.HANDED_OVER,
        # What it is good for is to be looked at, whatever became of its way up.
        state=str(State.READY) if hello else session.state,
        fresh=False,
        boots=max(1, ledger.record.boots),
        guest_boot=hello.boot_id if hello else ledger.record.guest_boot,
    )
    await session.release()
