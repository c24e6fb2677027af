# SPDX-License-Identifier: Apache-2.0
"""Somebody's seat at a machine: one shell in the guest, and the next one after a reboot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

from bugbox.errors import GuestError, MachineLost, StateError
from bugbox.machine.lifeline.shell import Refused, Terminal
from bugbox.machine.state import State
from bugbox.session.ready import goes_down
from bugbox.session.saving import SAVED
from bugbox.session.session import Session

__all__ = ["Ended", "Login", "Note", "Output", "Seat"]

#: Seconds between a shell's end and the reboot that ended it.
_REBOOT_GRACE = 90.0
#: Shells that nobody is attached to, of one session; the oldest goes when there are more.
_DETACHED_LIMIT = 8
#: What guest/PROTOCOL.md says to the one whose terminal was attached by another.
_TAKEN_OVER = "taken over"
#: Seconds to ask process 1 whether it is going down.
_ASK_TIMEOUT = 3.0
#: How often: on its way down it is busy.
_ASK_TIMES = 5
_FOREVER = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who sits down, and how."""

    user: str
    term: str = "xterm-256color"
    rescue: bool = False
    #: This command on a terminal, in place of a login.
    argv: tuple[str | bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes for the screen."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """Something about the machine that the person should see; `terminal`: the new shell's id."""

    text: str
    state: str
    terminal: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The shell is over."""

    code: int | None
    signal: int | None = None


class Seat:
    """Receive and send; a guest's reboot shows up as notes in between."""

    def __init__(self, session: Session, login: Login, rows: int, cols: int) -> None:
        self.session = session
        self._login = login
        self._rows, self._cols = rows, cols
        self._terminal: Terminal | None = None
        #: The shell that was lost with its machine.
        self._lost = ""
        self._over = False
        #: The shell that is on the disk with its machine.
        self._left = ""
        self._taking = anyio.Lock()
        #: What ends the seat once its last note is told.
        self._farewell: Ended | None = None

    @property
    def terminal(self) -> str:
        """The shell's id, for `attach`."""
        return self._terminal.id if self._terminal else ""

    async def sit_down(self) -> None:
        """Open a new shell. StateError when there are as many as its puzzle allows."""
        lifeline = await self.session.lifeline()
        try:
            if not self._login.rescue:
                await self._make_room(self._take_place())
            self._terminal = await lifeline.terminal(
                user=self._login.user,
                rows=self._rows,
                cols=self._cols,
                term=self._login.term,
                login=not self._login.rescue and not self._login.argv,
                rescue=self._login.rescue,
                argv=list(self._login.argv) or None,
            )
        except BaseException:
            self.session.seated.discard(self)
            raise

    def _take_place(self, terminal: str = "") -> int:
        """Be one of those at a terminal, besides so many; who is at `terminal` gives us theirs."""
        session, most = self.session, self.session.plan.access.terminals
        others = sum(
            not (isinstance(each, Seat) and terminal and each.terminal == terminal)
            for each in session.seated - {self}
        )
        if most is not None and others >= most:
            raise StateError(
                f"{session.id} has {most} terminal{'' if most == 1 else 's'} at once, "
                f"and {'it is' if most == 1 else 'all are'} taken",
                hint="leave one of them; access.terminals in its puzzle.yaml says how many",
            )
        session.seated.add(self)
        return others

    async def _make_room(self, others: int) -> None:
        """End shells that nobody sits at, for ours."""
        most = self.session.plan.access.terminals
        if most is not None:
            await self._keep_detached(most - others - 1)

    async def come_back(self, terminal: str) -> None:
        """Attach to the shell that we, or somebody before us, left running.

        StateError when as many as its puzzle allows are at other ones.
        """
        lifeline = await self.session.lifeline()
        had = self in self.session.seated
        try:
            if not self._login.rescue:
                self._take_place(terminal)
            self._terminal = await lifeline.attach(terminal, self._rows, self._cols)
        except BaseException:
            if not had:
                self.session.seated.discard(self)
            raise
        if terminal in self.session.detached:
            self.session.detached.remove(terminal)

    async def send(self, data: bytes) -> None:
        """Type, which wakes a machine that rests. What is typed while no shell is there is lost."""
        await self.session.wake()
        self.session.used = time.monotonic()
        await self._take_again()
        if self._terminal:
            await self._terminal.send(data)

    async def _take_again(self) -> None:
        """Attach to the shell that was saved with its machine, once that is there again."""
        async with self._taking:
            if not self._left or self.session.saved:
                return
            try:
                await self.come_back(self._left)
            except GuestError:  # booted again meanwhile: it is another machine's
                await self.sit_down()
            self._left = ""

    async def signal(self, number: int) -> None:
        """Send a signal to the foreground group."""
        if self._terminal:
            await self._terminal.signal(number)

    async def resize(self, rows: int, cols: int) -> None:
        """Tell the size, also to shells to come."""
        self._rows, self._cols = rows, cols
        if self._terminal:
            await self._terminal.resize(rows, cols)

    async def leave(self) -> None:
        """Stand up; the shell lives on. Only so many are kept that nobody sits at."""
        terminal, self._terminal = self._terminal, None
        seated = self.session.seated
        seated.discard(self)
        if terminal is None or self._over:
            return
        await terminal.close()
        if any(isinstance(each, Seat) and each.terminal == terminal.id for each in seated):
            return  # whose it is now
        self.session.detached.append(terminal.id)
        most = self.session.plan.access.terminals
        room = _DETACHED_LIMIT if most is None else most - len(self.session.seated)
        await self._keep_detached(min(_DETACHED_LIMIT, room))

    async def _keep_detached(self, most: int) -> None:
        """End the oldest shells that nobody sits at, but for so many."""
        left = self.session.detached
        while len(left) > max(0, most):
            with contextlib.suppress(GuestError), anyio.move_on_after(_ASK_TIMEOUT):
                await self.session.hang_up(left.pop(0))

    async def receive(self) -> Output | Note | Ended:
        """Return what comes next; `Ended` is the last. GuestError when the machine is gone."""
        if self._terminal is None:
            return await self._next_shell()
        try:
            item = await self._terminal.receive()
            if item is not None:
                self.session.used = time.monotonic()
                return Output(item[1])
            status = await self._terminal.status()
            ended = Ended(status.status, status.signal)
        except Refused as error:
            if error.step == _TAKEN_OVER:
                self._over = True
                raise GuestError("somebody else attached to this terminal") from error
            ended = None
        except GuestError:
            ended = None
        going_down = await self._going_down()
        if ended is not None and not going_down:
            self._over = True
            return ended
        old, self._terminal = self._terminal, None
        self._lost = old.id
        if self.session.saved:
            self._left = old.id
        if not going_down:
            return await self._same_shell(old.id)
        return await self._what_became_of_it(ended)

    async def _going_down(self) -> bool:
        """Whether the shell ended because the machine does."""
        if self._not_ready():
            return True
        # The machine's end may show here first, and in its state a moment later: whichever says so.
        answer: list[bool] = []
        async with anyio.create_task_group() as group:

            async def ask() -> None:
                answer.append(await self._says_it_goes_down())
                group.cancel_scope.cancel()

            group.start_soon(ask)
            while not self._not_ready():
                await self.session.changed(_FOREVER)
            group.cancel_scope.cancel()
        return answer[0] if answer else True

    def _not_ready(self) -> bool:
        machine = self.session.machine
        return self.session.over or machine is None or machine.state is not State.READY

    async def _says_it_goes_down(self) -> bool:
        timeout = _ASK_TIMEOUT * self.session.host.settings.timeout_factor
        try:
            for _ in range(_ASK_TIMES):
                answer = await goes_down(await self.session.lifeline(), timeout)
                if answer is not None:
                    return answer
        except (GuestError, StateError):
            return True
        return False

    async def _same_shell(self, terminal: str) -> Note:
        """The agent was killed and is back: its shells may have lived on, or not."""
        try:
            await self.come_back(terminal)
        except GuestError:
            await self.sit_down()
            return Note("your shell was ended; this is a new one", "ready", self.terminal)
        return Note("the connection to the machine is back", "ready", self.terminal)

    async def _what_became_of_it(self, ended: Ended | None) -> Note | Ended:
        """The shell is gone with the machine: wait until it is clear where that goes."""
        session = self.session
        grace = _REBOOT_GRACE * session.host.settings.timeout_factor
        with anyio.move_on_after(grace):
            while session.state == State.READY:
                await session.changed(grace)
        if session.state in (State.REBOOTING, State.BOOTING):
            return Note(session.meanwhile or "rebooting…", str(State.REBOOTING))
        if session.state == SAVED:
            return Note(f"{session.reason}: the machine is on the disk; any key loads it", SAVED)
        if session.state == State.OFF:
            return self._powered_off()
        if session.state == State.READY and ended:
            return ended
        raise _gone(session)

    async def _next_shell(self) -> Note | Ended:
        """Wait for the reboot's end and log in anew."""
        if self._farewell:
            return self._farewell
        if self._left:
            while self.session.state == SAVED:
                await self.session.changed(_FOREVER)
            await self.session.settled()
            if self.session.state == State.READY or self.session.resting:
                await self._take_again()
                return Note("the machine runs on", str(State.READY), self.terminal)
            self._left = ""
        await self.session.settled()
        if self.session.state == State.OFF:
            return self._powered_off()
        if self.session.state != State.READY:
            raise _gone(self.session)
        if self._lost in self.session.restored:
            with contextlib.suppress(GuestError):
                await self.come_back(self._lost)
                return Note(
                    "the machine is back, and your shell as it was then", "ready", self.terminal
                )
        await self.sit_down()
        return Note("the machine is back", str(State.READY), self.terminal)

    def _powered_off(self) -> Note:
        self._farewell = Ended(0)
        id = self.session.id
        return Note(f"the machine is off; bugbox resume {id} boots it", str(State.OFF))

    async def stands_still(self) -> AsyncGenerator[Note, None]:
        """Yield a note when the machine stands still under a living shell, and when it runs on.

        And what everybody is told.
        """
        session, before = self.session, self.session.state
        rested = False
        told = len(session.news)
        while True:
            await session.changed(_FOREVER)
            now = session.state
            for text in session.news[told:]:
                yield Note(text, now)
            told = len(session.news)
            if self.session.saving:
                continue
            if now != before and now in (State.STALLED, State.PAUSED):
                rested = bool(session.resting)
                why = f"{session.reason or now}: the machine stands still"
                how = "any key" if rested else f"bugbox resume {session.id}"
                yield Note(f"{why}; {how} lets it run on", now)
            elif before in (State.STALLED, State.PAUSED) and now == State.READY and not rested:
                yield Note("the machine runs on", now)
            before = now


def _gone(session: Session) -> MachineLost:
    if session.over:
        return MachineLost(f"{session.id} was stopped")
    why = f": {session.reason}" if session.reason else ""
    return MachineLost(
        f"{session.id} is {session.state}{why}",
        hint=f"bugbox resume {session.id}, bugbox shell --rescue {session.id}, "
        f"or bugbox reset {session.id}",
    )
