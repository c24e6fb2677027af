# SPDX-License-Identifier: Apache-2.0
"""What `bugbox test` does on one machine, stage by stage: each fills a `Draft` of its case."""

from __future__ import annotations

import anyio

from bugbox.errors import BootFailed, GuestError
from bugbox.machine.lifeline.shell import Result
from bugbox.puzzle import judge
from bugbox.puzzle.check import Report
from bugbox.puzzle.definition import Puzzle, Script
from bugbox.puzzle.text import printable
from bugbox.puzzle.tree import Tree, changed, own_doing
from bugbox.session.trial import Trial

__all__ = ["Draft", "honest", "reboot", "refuse", "restless", "solve", "untouched"]

#: Changed files that a message names.
_NAMED = 5
#: How often the files may be listed until the machine leaves them alone.
_SETTLING = 4


class Draft:
    """A case while it is tried."""

    def __init__(self, ran: str) -> None:
        self.ran = ran
        #: What is wrong, one line each; empty: nothing is.
        self.wrong: tuple[str, ...] = ()
        #: What is worth saying all the same.
        self.remark = ""
        self.output = ""

    def tell(self, report: Report) -> None:
        """Keep what the checks said, and remark on those that could not be run here."""
        lines = [self.output.rstrip("\n")] if self.output else []
        for outcome in report.checks:
            lines.append(f"{outcome.id}: {outcome.status} {outcome.message}".rstrip())
            lines += [f"  {line}" for line in outcome.detail.splitlines()]
        self.output = "\n".join(lines)
        left_out = [outcome.id for outcome in report.checks if outcome.not_here]
        self.remark = f"not run here: {', '.join(left_out)}" if left_out else ""


async def restless(made: Trial) -> tuple[Tree, set[bytes]]:
    """Wait a little for the machine to settle; return its files, and those it changes by itself."""
    own: set[bytes] = set()
    before = await made.tree()
    for _ in range(_SETTLING):
        after = await made.tree()
        more = changed(before, after)
        before, own = after, own | more
        if not more:
            break
    return before, own


async def untouched(made: Trial, puzzle: Puzzle, draft: Draft) -> Report:
    """Check a machine that nobody has touched."""
    report = await made.check()
    draft.wrong = judge.untouched(puzzle, report)
    draft.tell(report)
    return report


async def honest(
    made: Trial, first: Report, before: Tree, own: set[bytes], began: float, draft: Draft
) -> None:
    """Check once more: the same answer, and the machine's files are as they were before both.

    `before` is from the time `began`, `first` from after it.
    """
    second = await made.check()
    took = anyio.current_time() - began
    after = await made.tree()
    suspects = changed(before, after)
    suspects -= own_doing(suspects, own)
    if suspects:
        # Does the machine do that by itself, given the time?
        await anyio.sleep(took)
        suspects -= own_doing(suspects, changed(after, await made.tree()))
    draft.wrong = (*judge.agreed(first, second), *_touched(suspects))
    draft.tell(second)


def _touched(suspects: set[bytes]) -> tuple[str, ...]:
    if not suspects:
        return ()
    named = ", ".join(printable(path, lines=False) for path in sorted(suspects)[:_NAMED])
    more = f" and {len(suspects) - _NAMED} more" if len(suspects) > _NAMED else ""
    return (f"the checks change files of the machine: {named}{more}",)


async def solve(made: Trial, script: Script, draft: Draft) -> None:
    """Run a solution as the learner: it ends well, and every check passes."""
    result = await made.typed(script)
    draft.output = _output(result)
    if result.timed_out:
        draft.wrong = (f"{script.name} did not end in time",)
    elif result.code != 0:
        draft.wrong = (f"{script.name} ended with status {result.code}",)
    else:
        report = await made.check()
        draft.wrong = judge.solved(report)
        draft.tell(report)


async def refuse(made: Trial, script: Script, draft: Draft) -> None:
    """Run what is no solution as the learner, whatever becomes of it: a check still fails."""
    try:
        draft.output = _output(await made.typed(script))
    except BootFailed:
        raise
    except GuestError as error:
        draft.output = error.message  # it may have taken the machine along
    report = await made.check()
    draft.wrong = judge.refused(report, script)
    draft.tell(report)


async def reboot(made: Trial, draft: Draft) -> None:
    """Reboot a solved machine: it is solved afterwards, too."""
    await made.reboot()
    report = await made.check()
    draft.wrong = tuple(f"after a reboot: {wrong}" for wrong in judge.solved(report))
    draft.tell(report)


def _output(result: Result) -> str:
    return (result.stdout + result.stderr).decode(errors="replace")
