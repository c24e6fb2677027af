# SPDX-License-Identifier: Apache-2.0
"""bugbox test: does a puzzle do what it promises? Every stage of it on real machines."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bugbox.cli import prepare
from bugbox.cli.events import shown
from bugbox.cli.loop import run_async
from bugbox.cli.out import document, duration, paint, printable, say
from bugbox.cli.sheets import ending, table
from bugbox.config import load
from bugbox.errors import UserError
from bugbox.paths import Home
from bugbox.puzzle import catalogue
from bugbox.puzzle.definition import Puzzle, read
from bugbox.puzzle.junit import junit as as_junit
from bugbox.puzzle.matrix import Case, Sheet, Stage, chosen_stages
from bugbox.session.build_machine import Parts
from bugbox.session.drivers import BUILDER, choose
from bugbox.session.matrix import Wishes, try_puzzles
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host
from bugbox.session.resident import Resident

__all__ = ["test", "tested"]

_INTERRUPTED = 130
_MARKS = {
    "passed": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("-", "yellow"),
    "interrupted": ("…", "yellow"),
}
#: Lines of a failed case's output that are shown.
_SHOWN_LINES = 40


def test(
    *names: str,
    all: bool = False,
    repeat: int | None = None,
    only: Sequence[str] = (),
    junit: str | None = None,
    keep: bool = False,
    json: bool = False,
) -> int:
    """Test puzzles on real machines; status 1 if any fails.

    Looked at, in this order: lint; build (twice, the same layer); boot; untouched (each check
    fails, with a sentence); honest (checks change nothing); solve (each way passes); wrong (each
    wrong fix is refused); reboot (still solved); clone; leak (no check or solution in the layer).

    Args:
        names: Names of the catalogue or folders. Without one, the folder you stand in.
        all: The whole catalogue.
        repeat: Try each solution so often, whatever the puzzle says.
        only: This stage alone, with what it cannot do without; may be given more than once.
        junit: Write the result to this file as JUnit XML.
        keep: Leave the machine of whatever fails running, to be looked at.
        json: Print one JSON document.
    """
    return tested(names, all=all, repeat=repeat, only=only, junit=junit, keep=keep, json=json)


def tested(
    names: Sequence[str],
    *,
    all: bool = False,
    repeat: int | None = None,
    only: Sequence[str] = (),
    junit: str | None = None,
    keep: bool = False,
    json: bool = False,
    resident: Resident | None = None,
) -> int:
    """Test puzzles. With `resident` a build machine stands by afterwards, for the next time."""
    if repeat is not None and not 1 <= repeat <= 100:
        raise UserError(f"--repeat {repeat}: expected a number from 1 to 100")
    chosen = chosen_stages(only)
    home = Home()
    settings = load(home)
    where = catalogue.roots(settings.puzzles)
    folders = _folders(names, where, all=all)
    sheets = [(Sheet(puzzle=folder.name, chosen=chosen), folder) for folder in folders]
    parts = _shared(folders)
    host = Host(home=home, settings=settings, driver=choose(home, settings))
    wishes = Wishes(chosen=chosen, repeat=repeat, keep=keep, jobs=_cores(), resident=resident)
    known = catalogue.names(where)

    async def work() -> None:
        await try_puzzles(sheets, lambda puzzle: _parts_of(puzzle, parts), host, wishes, known)

    begun = time.monotonic()
    interrupted = False
    try:
        with shown():
            run_async(work)
    except KeyboardInterrupt:
        interrupted = True
    if resident is not None and not interrupted:
        _stand_by(resident, folders[0], parts, host)
    told = [sheet for sheet, _ in sheets]
    if junit is not None:
        Path(junit).write_bytes(as_junit(told))
    if json:
        document({
            "passed": not interrupted and _passed(told),
            "interrupted": interrupted,
            "puzzles": [sheet.as_json() for sheet in told],
        })  # fmt: skip
    else:
        _show(told, time.monotonic() - begun, interrupted=interrupted)
    return _INTERRUPTED if interrupted else 0 if _passed(told) else 1


def _passed(sheets: Sequence[Sheet]) -> bool:
    return all(sheet.passed for sheet in sheets)


def _folders(names: Sequence[str], where: Sequence[Path], *, all: bool) -> list[Path]:
    if all:
        if names:
            raise UserError("puzzles, or --all, not both")
        return [entry.folder for entry in catalogue.entries(where)]
    found = [catalogue.locate(name, where, Path.cwd()).resolve() for name in names or (None,)]
    return [*dict.fromkeys(found)]


def _shared(folders: Sequence[Path]) -> dict[str, Prepared]:
    """Build what the puzzles' bases need, each base once."""
    puzzles: list[Puzzle] = []
    for folder in folders:
        puzzle, _ = read(folder)
        if puzzle is not None:
            puzzles.append(puzzle)
    return {base: prepare.ensure(None, base) for base in {puzzle.base for puzzle in puzzles}}


def _parts_of(puzzle: Puzzle, parts: Mapping[str, Prepared]) -> Prepared:
    """Return what its base needs; UserError when it asks for another base since we looked."""
    try:
        return parts[puzzle.base]
    except KeyError:
        raise UserError(
            f"{puzzle.name}: puzzle.yaml was changed meanwhile: base is {puzzle.base} now",
            hint="test it again",
        ) from None


def _stand_by(resident: Resident, folder: Path, parts: Mapping[str, Prepared], host: Host) -> None:
    """See to a machine for the next build of a puzzle."""
    puzzle, _ = read(folder)
    # Saved while the test ran, it may have another base: the next test sees to that one.
    shared = parts.get(puzzle.base) if puzzle is not None else None
    if puzzle is None or shared is None or not puzzle.builds:
        return
    made_with = Parts(
        home=host.home,
        settings=host.settings,
        image=shared.image,
        kernel=shared.kernel,
        initrd=shared.initrd,
        driver=choose(host.home, host.settings, BUILDER),
    )
    resident.fill(made_with, puzzle.manifest.machine.disk)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _show(sheets: Sequence[Sheet], seconds: float, *, interrupted: bool) -> None:
    for sheet in sheets:
        if sheet.cases or len(sheets) == 1:
            _show_puzzle(sheet)
    for sheet in sheets:
        for case in sheet.failures:
            _show_failure(sheet.puzzle, case)
    say()
    if len(sheets) > 1:
        for line in table(sheets):
            say(line)
        say()
    say(ending(sheets, interrupted=interrupted, took=duration(seconds)))


def _show_puzzle(sheet: Sheet) -> None:
    say(paint(sheet.puzzle, "bold"))
    for stage in sheet.shown():
        status = sheet.status(stage)
        mark, style = _MARKS[status]
        cases = sheet.of(stage)
        time = duration(sum(case.seconds for case in cases)) if cases else ""
        note = _note(sheet, stage, cases)
        say(f"  {paint(mark, style)} {stage:<10} {time:>9}  {note}".rstrip())


def _note(sheet: Sheet, stage: Stage, cases: Sequence[Case]) -> str:
    status = sheet.status(stage)
    failed = [case for case in cases if case.status == "failed"]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return printable(f"{failed[0].name}: {failed[0].message}{more}", lines=False)
    if status in ("skipped", "interrupted"):
        return sheet.why_skipped(stage)
    remarks = dict.fromkeys(case.message for case in cases if case.message)
    names = ", ".join(case.name for case in cases) if stage in _NAMED else ""
    return printable("; ".join(part for part in (names, *remarks) if part), lines=False)


#: Stages that try more than one thing: it is told which.
_NAMED = (Stage.SOLVE, Stage.WRONG)


def _show_failure(puzzle: str, case: Case) -> None:
    say()
    say(paint(f"{puzzle}: {case.stage}: {printable(case.name)}", "red"))
    say(f"  {printable(case.message)}")
    if case.ran:
        say(f"  ran: {printable(case.ran)}")
    lines = case.output.splitlines()
    if len(lines) > _SHOWN_LINES:
        say(f"  | … {len(lines) - _SHOWN_LINES} lines more, before these")
    for line in lines[-_SHOWN_LINES:]:
        say(paint(f"  | {printable(line)}", "dim"))
    if case.machine:
        say(f"  bugbox shell {case.machine} stands in that very machine")
    elif case.stage not in (Stage.LINT, Stage.BUILD, Stage.LEAK):
        say(f"  bugbox test {puzzle} --only {case.stage} --keep keeps the machine to look at")
