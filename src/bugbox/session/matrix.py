# SPDX-License-Identifier: Apache-2.0
"""`bugbox test`: the stages of puzzle.matrix on real machines, as many at once as there are cores.

Each solution and each wrong fix has a machine of its own. The first machine serves the stages that
change nothing, and then the first solution and its reboot. The others start when it has booted.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from bugbox.config import Settings
from bugbox.errors import BugboxError
from bugbox.events import listening, notice, step
from bugbox.host.bridge import in_thread
from bugbox.image.kernel import BuiltKernel
from bugbox.image.rootfs import BuiltImage
from bugbox.machine.driver import Driver
from bugbox.paths import Home
from bugbox.puzzle import judge, leak
from bugbox.puzzle.check import Report
from bugbox.puzzle.definition import Puzzle, Script, read
from bugbox.puzzle.lint import lint
from bugbox.puzzle.matrix import Sheet, Stage, needed
from bugbox.puzzle.quantity import format_duration
from bugbox.session import stages
from bugbox.session.builder import BuiltLayer, build_again, ensure_layer
from bugbox.session.cloning import Cloning
from bugbox.session.drivers import BUILDER, choose
from bugbox.session.layer_search import leaks
from bugbox.session.notebook import Notebook
from bugbox.session.plan import Plan, of_puzzle
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Bring, Host
from bugbox.session.resident import Resident
from bugbox.session.trial import Trial, trial

__all__ = ["Wishes", "try_puzzles"]

#: So many machines are worth the making of a template.
_WORTH_IT = 3
_Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What whoever asked for the test wants."""

    chosen: frozenset[Stage]
    #: How often each solution is tried; None: as the puzzle says.
    repeat: int | None = None
    #: Leave the machine of whatever fails running.
    keep: bool = False
    #: Machines at once.
    jobs: int = 1
    #: Where a build machine may stand by.
    resident: Resident | None = None


async def try_puzzles(
    sheets: Sequence[tuple[Sheet, Path]],
    shared: Callable[[Puzzle], Prepared],
    host: Host,
    wishes: Wishes,
    known: Collection[str] = (),
) -> None:
    """Test every puzzle, and fill its sheet as results come; cancelled, it holds those so far.

    `shared` gives what the puzzle's base needs: kernel, initramfs and image, already built.
    """
    slots = anyio.CapacityLimiter(wishes.jobs)
    # One puzzle after the other, as far as that keeps all cores busy: who stops the test half-way
    # has whole puzzles then, and templates are used while they are at hand.
    turns = anyio.CapacityLimiter(wishes.jobs)
    cloning = Cloning(host.home)

    async def in_turn(sheet: Sheet, folder: Path) -> None:
        async with turns:
            await _Test(sheet, folder, shared, host, wishes, known, slots, cloning).run()
        if len(sheets) > 1:
            done = sum(each.complete for each, _ in sheets)
            told = "passed" if sheet.passed else "failed"
            took = format_duration(round(sheet.seconds))
            notice(f"{sheet.puzzle} {told} in {took} ({done} of {len(sheets)} puzzles done)")

    try:
        async with anyio.create_task_group() as group:
            for sheet, folder in sheets:
                group.start_soon(in_turn, sheet, folder)
    except BaseExceptionGroup as errors:
        # What is nobody's case, such as a host without memory, ends the whole test.
        told = _only_error(errors)
        if told is None:
            raise
        raise told from None
    finally:
        cloning.close()


def _only_error(errors: BaseExceptionGroup[BaseException]) -> BugboxError | None:
    """Return an error that somebody can do something about, when nothing else went wrong."""
    found = None
    for error in errors.exceptions:
        inner = _only_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, BugboxError):
            return None
        found = inner
    return found


def _builder(host: Host) -> Driver:
    own = host.driver
    return own if own.name == BUILDER else choose(host.home, host.settings, BUILDER)


class _Test:
    """The test of one puzzle."""

    def __init__(
        self,
        sheet: Sheet,
        folder: Path,
        shared: Callable[[Puzzle], Prepared],
        host: Host,
        wishes: Wishes,
        known: Collection[str],
        slots: anyio.CapacityLimiter,
        cloning: Cloning,
    ) -> None:
        self.sheet = sheet
        self.folder = folder
        self.shared = shared
        self.host = host
        self.wishes = wishes
        self.known = known
        self.slots = slots
        self.cloning = cloning
        #: What builds layers, whatever runs the machines.
        self.builder = _builder(host)
        self.notes = Notebook(sheet, keep=wishes.keep)
        #: The stages asked for, and those they cannot do without.
        self.wanted = wishes.chosen.union(*map(needed, wishes.chosen))
        self.puzzle: Puzzle
        self.parts: Prepared
        self.layer: BuiltLayer
        self.plan: Plan
        self.booted = anyio.Event()
        #: What the checks said in the first machine, once they have.
        self.untouched: Report | None = None
        self.looked = anyio.Event()
        #: How further machines are made: cloned where there is a template.
        self.bring: Bring | None = None

    async def run(self) -> None:
        """Do all that is asked for, in the order of the stages as far as one needs another."""
        begun = time.monotonic()
        try:
            whole = await self._lint()
            if whole and Stage.BUILD in self.wanted and await self._build_once():
                async with anyio.create_task_group() as group:
                    if Stage.BUILD in self.wishes.chosen:
                        group.start_soon(self._build_again)
                    if Stage.LEAK in self.wanted:
                        group.start_soon(self._leak)
                    if Stage.BOOT in self.wanted:
                        group.start_soon(self._machines)
            self.sheet.complete = True
        finally:
            self.sheet.seconds = time.monotonic() - begun

    # Without a machine of the puzzle's own.

    async def _lint(self) -> bool:
        begun = time.monotonic()
        findings = await in_thread(lint, self.folder, self.known)
        errors = [str(finding) for finding in findings if finding.level == "error"]
        puzzle, _ = await in_thread(read, self.folder)
        if puzzle is not None:
            self.puzzle = puzzle
            # Drawn once: all machines of the test have the same variants.
            self.plan = of_puzzle(puzzle)
            # What is a warning while one writes is a gap in a test.
            errors += [] if puzzle.solutions else ["there is no solve.sh"]
            errors += [] if puzzle.wrong else ["there is no wrong.d/*.sh"]
        remark = f"warnings: {len(findings) - len(errors)}" if len(findings) > len(errors) else ""
        self.notes.ended(Stage.LINT, self.folder.name, begun, errors, remark)
        return not errors

    async def _build_once(self) -> bool:
        self.parts = self.shared(self.puzzle)
        begun = time.monotonic()
        try:
            async with self._slot("build"):
                resident = self.wishes.resident
                layer = await ensure_layer(*self._build_args(), resident=resident)
        except BugboxError as error:
            self.notes.failed(Stage.BUILD, "build", begun, error, ran="build.sh")
            return False
        self.layer = layer
        self.notes.ended(Stage.BUILD, "build", begun, ())
        return True

    async def _build_again(self) -> None:
        begun = time.monotonic()
        try:
            async with self._slot("build again"):
                begun = time.monotonic()
                digest = await build_again(*self._build_args())
        except BugboxError as error:
            self.notes.failed(Stage.BUILD, "again", begun, error, ran="build.sh")
            return
        first = self.layer.tar_sha256
        wrong = f"built twice, two layers: {first[:12]} and {digest[:12]}"
        self.notes.ended(Stage.BUILD, "again", begun, () if digest == first else (wrong,))

    @property
    def _parts(self) -> Prepared:
        return replace(self.parts, layer=self.layer)

    def _build_args(
        self,
    ) -> tuple[Home, Settings, Puzzle, BuiltImage, BuiltKernel, Path, Driver]:
        host, parts = self.host, self.parts
        image, kernel, initrd = parts.image, parts.kernel, parts.initrd
        return host.home, host.settings, self.puzzle, image, kernel, initrd, self.builder

    async def _leak(self) -> None:
        begun = time.monotonic()
        forbidden = self.puzzle.manifest.test.forbid_text_in_guest
        hidden = leak.secrets(self.puzzle, forbidden)
        try:
            found = await in_thread(leaks, self.layer.tar, hidden)
        except BugboxError as error:
            self.notes.failed(Stage.LEAK, "layer", begun, error)
            return
        self.notes.ended(Stage.LEAK, "layer", begun, tuple(map(str, found)))

    # On machines.

    async def _machines(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._first_machine)
            await self.booted.wait()
            if not any(case.status == "passed" for case in self.sheet.of(Stage.BOOT)):
                return
            others = self._others()
            worth_it = Stage.CLONE in self.wanted or len(others) >= _WORTH_IT
            if worth_it and await self._template() and Stage.CLONE in self.wanted:
                group.start_soon(self._clone)
            for work in others:
                group.start_soon(work)

    async def _template(self) -> bool:
        """Make what machines are cloned from; whether that went well."""
        begun = time.monotonic()
        why = "" if self.host.driver.abilities.clone else "this driver makes no clones"
        why = "the settings turn templates off" if self.host.settings.templates == "off" else why
        why = why or ("" if self.plan.clonable else "a machine with further disks is not cloned")
        if why:
            if Stage.CLONE in self.wanted:
                self.notes.skipped(Stage.CLONE, "clone", why)
            return False
        try:
            async with self._slot("template"):
                begun = time.monotonic()
                await self.cloning.make(self.plan, self._parts, self.host)
        except BugboxError as error:
            self.notes.failed(Stage.CLONE, "template", begun, error, ran="a template")
            return False
        self.bring = self.cloning.bring
        return True

    async def _clone(self) -> None:
        """See whether a clone says what the booted machine says."""
        if self.wanted & {Stage.UNTOUCHED, Stage.HONEST}:
            await self.looked.wait()
        async with self._machine(Stage.CLONE, "clone") as made:
            if made is None:
                return
            async with self.notes.trying(made, Stage.CLONE, "clone") as draft:
                report = await stages.untouched(made, self.puzzle, draft)
                if not made.session.record.template:
                    draft.wrong = (*draft.wrong, "it was booted: the clone had failed")
                elif self.untouched is not None:
                    draft.wrong = (*draft.wrong, *judge.alike(self.untouched, report))

    def _others(self) -> list[_Work]:
        """Return all that wants a machine of its own."""
        found: list[_Work] = []
        for n in range(self._repeat):
            for script in self.puzzle.solutions if Stage.SOLVE in self.wanted else ():
                if n or script is not self.puzzle.solve:
                    found.append(self._alone(Stage.SOLVE, script, n))
        for script in self.puzzle.wrong if Stage.WRONG in self.wanted else ():
            found.append(self._alone(Stage.WRONG, script, 0))
        return found

    @property
    def _repeat(self) -> int:
        if Stage.SOLVE not in self.wishes.chosen:
            return 1
        return self.wishes.repeat or self.puzzle.manifest.test.repeat

    def _alone(self, stage: Stage, script: Script, n: int) -> _Work:
        name = _times(script.name, n)

        async def work() -> None:
            async with self._machine(stage, name) as made:
                if made is not None:
                    await self._way(made, stage, script, name)

        return work

    async def _first_machine(self) -> None:
        try:
            async with self._machine(Stage.BOOT, "boot", cold=True) as made:
                if made is None:
                    return
                self._booted(made)
                self.booted.set()
                if self.wanted & {Stage.UNTOUCHED, Stage.HONEST}:
                    await self._look(made)
                self.looked.set()
                if not made.keep:
                    await self._solve_it(made)
                    return
            if Stage.SOLVE not in self.wanted:
                return
            # That machine is kept as it is, so the solution needs another.
            async with self._machine(Stage.SOLVE, "solve.sh") as made:
                if made is not None:
                    await self._solve_it(made)
        finally:
            self.booted.set()
            self.looked.set()

    async def _solve_it(self, made: Trial) -> None:
        """Run the reference solution, and see whether it lasts."""
        solve = self.puzzle.solve
        if Stage.SOLVE not in self.wanted or solve is None:
            return
        if await self._way(made, Stage.SOLVE, solve, solve.name) and Stage.REBOOT in self.wanted:
            async with self.notes.trying(made, Stage.REBOOT, "reboot", "reboot, checks") as draft:
                await stages.reboot(made, draft)

    def _booted(self, made: Trial) -> None:
        took = made.watch.as_ms()["total"] / 1000
        budget = self.puzzle.manifest.test.boot_budget
        wrong: tuple[str, ...] = ()
        if budget is not None and took > budget * self.host.settings.timeout_factor:
            wrong = (f"ready after {took:.1f} s; test.boot_budget is {format_duration(budget)}",)
        self.notes.ended(Stage.BOOT, "boot", time.monotonic() - took, wrong)

    async def _look(self, made: Trial) -> None:
        """Run the stages that leave the machine as it is."""
        if Stage.HONEST not in self.wanted:
            async with self.notes.trying(made, Stage.UNTOUCHED, "checks") as draft:
                self.untouched = await stages.untouched(made, self.puzzle, draft)
            return
        async with self.notes.trying(made, Stage.HONEST, "checks", "the checks, twice") as draft:
            # Looked at before any check has run here: one may change something once only.
            before, own = await stages.restless(made)
            began = anyio.current_time()
            async with self.notes.trying(made, Stage.UNTOUCHED, "checks") as first:
                self.untouched = await stages.untouched(made, self.puzzle, first)
            if self.untouched is not None:
                await stages.honest(made, self.untouched, before, own, began, draft)

    async def _way(self, made: Trial, stage: Stage, script: Script, name: str) -> bool:
        """Run a solution, or what is none, and look what the checks say; whether all is well."""
        async with self.notes.trying(made, stage, name, script.name) as draft:
            await (stages.solve if stage is Stage.SOLVE else stages.refuse)(made, script, draft)
        return not draft.wrong

    @asynccontextmanager
    async def _slot(self, what: str) -> AsyncIterator[None]:
        """Wait for a turn, and show that it has come; the steps inside are not shown."""
        async with self.slots:
            with step(f"{self.sheet.puzzle}: {what}"), listening(lambda event: None):
                yield

    @asynccontextmanager
    async def _machine(
        self, stage: Stage, name: str, *, cold: bool = False
    ) -> AsyncIterator[Trial | None]:
        """Give a fresh machine, or None when it does not become ready: that is noted."""
        kept: list[str] = []
        keep_unready = kept.append if self.wishes.keep else None
        async with self._slot(name):
            begun = time.monotonic()
            making = trial(
                self.plan,
                self._parts,
                self.host,
                keep_unready=keep_unready,
                bring=None if cold else self.bring,
            )
            try:
                made = await making.__aenter__()
            except BugboxError as error:
                machine = kept[0] if kept else ""
                self.notes.failed(stage, name, begun, error, ran="boot", machine=machine)
                yield None
                return
            try:
                yield made
            except BaseException as error:
                if not await making.__aexit__(type(error), error, error.__traceback__):
                    raise
            else:
                await making.__aexit__(None, None, None)


def _times(name: str, n: int) -> str:
    return f"{name} ({n + 1})" if n else name
