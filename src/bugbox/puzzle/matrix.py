# SPDX-License-Identifier: Apache-2.0
"""The test of a puzzle as values: its stages, which needs which, and what came of each.

`session.matrix` does the work on real machines and adds `Case`s to a `Sheet`; everything that is
told about a test, to people or to programs, is read from the sheet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, Literal

from bugbox.errors import UserError

__all__ = ["NEEDS", "Case", "Sheet", "Stage", "Status", "chosen_stages", "needed"]

Status = Literal["passed", "failed", "skipped", "interrupted"]


class Stage(StrEnum):
    """What is looked at, in this order."""

    #: The folder alone: nothing is run.
    LINT = "lint"
    #: build.sh ends well, and does the same thing twice.
    BUILD = "build"
    #: A machine boots, and is broken as told.
    BOOT = "boot"
    #: Every check that needs no other fails, with a sentence.
    UNTOUCHED = "untouched"
    #: The checks change nothing, and say the same thing twice.
    HONEST = "honest"
    #: After solve.sh, and after each of solve.d, every check passes.
    SOLVE = "solve"
    #: After each of wrong.d a check still fails.
    WRONG = "wrong"
    #: The solved machine is solved after a reboot too.
    REBOOT = "reboot"
    #: A cloned machine says what a booted one says.
    CLONE = "clone"
    #: Nothing of checks, solutions and hints lies in the layer.
    LEAK = "leak"


#: A stage means nothing unless those it needs have passed.
NEEDS: dict[Stage, tuple[Stage, ...]] = {
    Stage.LINT: (),
    Stage.BUILD: (Stage.LINT,),
    Stage.BOOT: (Stage.BUILD,),
    Stage.UNTOUCHED: (Stage.BOOT,),
    Stage.HONEST: (Stage.BOOT,),
    Stage.SOLVE: (Stage.BOOT,),
    Stage.WRONG: (Stage.BOOT,),
    Stage.REBOOT: (Stage.SOLVE,),
    Stage.CLONE: (Stage.BOOT,),
    Stage.LEAK: (Stage.BUILD,),
}


def chosen_stages(names: Iterable[str]) -> frozenset[Stage]:
    """Return the stages that `--only` names, all when it names none; UserError for another word."""
    found = set()
    for name in names:
        if name not in {*Stage}:
            near = get_close_matches(name, [*Stage], n=1)
            hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(Stage)}"
            raise UserError(f"there is no stage {name}", hint=hint)
        found.add(Stage(name))
    return frozenset(found or Stage)


def needed(stage: Stage) -> frozenset[Stage]:
    """Return all that must have passed before a stage."""
    direct = NEEDS[stage]
    return frozenset(direct).union(*map(needed, direct))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that was tried in a stage."""

    stage: Stage
    #: Such as `solve.d/mask.sh`, or `solve.sh (2)` at its second time.
    name: str
    status: Status
    seconds: float = 0.0
    #: One line: what is wrong, or why it was skipped; a remark where it passed.
    message: str = ""
    #: What was run, and what it printed.
    ran: str = ""
    output: str = ""
    #: The session that was kept to look at; empty: none was.
    machine: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the shape that `test --json` prints."""
        keys = ("name", "status", "seconds", "message", "ran", "output", "machine")
        return {key: getattr(self, key) for key in keys}


@dataclass(slots=True, kw_only=True)
class Sheet:
    """What is known about one puzzle; cases are added as they end."""

    puzzle: str
    chosen: frozenset[Stage]
    cases: list[Case] = field(default_factory=list)
    #: Everything that was to be done has been done.
    complete: bool = False
    seconds: float = 0.0

    def add(self, case: Case) -> None:
        """Note how something ended."""
        self.cases.append(case)

    def of(self, stage: Stage) -> list[Case]:
        """Return the cases of one stage, as they ended."""
        return [case for case in self.cases if case.stage is stage]

    def status(self, stage: Stage) -> Status:
        """Return how a stage stands: failed if a case did, passed if one did and none failed."""
        statuses = {case.status for case in self.of(stage)}
        if "failed" in statuses:
            return "failed"
        if not statuses or "interrupted" in statuses:
            return "skipped" if self.complete else "interrupted"
        return "passed" if "passed" in statuses else "skipped"

    def shown(self) -> list[Stage]:
        """Return the stages to tell of: those asked for, and whatever kept them from being run."""
        return [stage for stage in Stage if stage in self.chosen or self.status(stage) == "failed"]

    def why_skipped(self, stage: Stage) -> str:
        """Return in one line why nothing was tried in a stage."""
        for case in self.of(stage):
            if case.message:
                return case.message
        before = [need for need in Stage if need in needed(stage)]
        failed = [need for need in before if self.status(need) == "failed"]
        if failed:
            return f"not without {failed[0]}"
        return "" if self.of(stage) or self.complete else "not done"

    @property
    def passed(self) -> bool:
        """Whether everything was done and nothing failed."""
        return self.complete and not any(case.status == "failed" for case in self.cases)

    @property
    def failures(self) -> list[Case]:
        """Return the cases that failed, in the order of the stages."""
        order = [*Stage]
        failed = [case for case in self.cases if case.status == "failed"]
        return sorted(failed, key=lambda case: order.index(case.stage))

    def as_json(self) -> dict[str, Any]:
        """Return the shape that `test --json` prints for one puzzle."""
        stages = []
        for stage in self.shown():
            told: dict[str, Any] = {
                "stage": str(stage),
                "status": self.status(stage),
                "seconds": round(sum(case.seconds for case in self.of(stage)), 3),
            }
            if told["status"] in ("skipped", "interrupted"):
                told["message"] = self.why_skipped(stage)
            stages.append({**told, "cases": [case.as_json() for case in self.of(stage)]})
        return {
            "puzzle": self.puzzle,
            "passed": self.passed,
            "seconds": round(self.seconds, 3),
            "stages": stages,
        }
