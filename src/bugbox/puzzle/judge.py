# SPDX-License-Identifier: Apache-2.0
"""What a report of checks should say at each stage of `bugbox test`: nothing, or what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from bugbox.puzzle.check import Outcome, Report
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.script import Script, refused_by

__all__ = ["Verdict", "agreed", "alike", "refused", "solved", "untouched"]


class Verdict(tuple[str, ...]):
    """What is wrong, one line each; empty: nothing is."""

    __slots__ = ()

    @property
    def message(self) -> str:
        """All of it in one line."""
        return "; ".join(self)


def untouched(puzzle: Puzzle, report: Report) -> Verdict:
    """Nobody has worked here: each check that waits for no other fails and says why."""
    return Verdict(_untouched(puzzle, report))


def _untouched(puzzle: Puzzle, report: Report) -> Iterator[str]:
    for check, outcome in zip(puzzle.checks, report.checks, strict=True):
        if outcome.status == "passed" and not check.needs:
            yield f"{check.id} passes on the untouched machine"
        elif outcome.status == "failed" and outcome.no_program:
            yield f"{check.id} cannot run on the untouched machine: {outcome.message}"
        else:
            yield from _unfit(outcome)


def solved(report: Report) -> Verdict:
    """Everything passes; a check that no machine here can run is no fault."""
    return Verdict(_solved(report))


def _solved(report: Report) -> Iterator[str]:
    for outcome in report.checks:
        if outcome.status == "failed":
            yield f"{outcome.id} still fails: {outcome.message}"
        else:
            yield from _unfit(outcome)


def refused(report: Report, script: Script) -> Verdict:
    """A wrong fix leaves a check failing: the one it names, if it names one."""
    return Verdict(_refused(report, script))


def _refused(report: Report, script: Script) -> Iterator[str]:
    for outcome in report.checks:
        yield from _unfit(outcome)
    failed = [outcome.id for outcome in report.checks if outcome.status == "failed"]
    named = refused_by(script)
    by_name = {outcome.id: outcome for outcome in report.checks}
    if named is not None and named[0] in by_name:
        one = by_name[named[0]]
        if one.status in ("failed", "broken") or one.not_here:
            return
        others = f"; {', '.join(failed)} refused it" if failed else ""
        yield f"{one.id} should have refused it and {_did(one)}{others}"
    elif not failed and not any(outcome.not_here for outcome in report.checks):
        yield "no check refuses it"


def _did(outcome: Outcome) -> str:
    return {"passed": "passed", "skipped": f"was skipped ({outcome.message})"}[outcome.status]


def _unfit(outcome: Outcome) -> Iterator[str]:
    """What is wrong with an outcome at any stage."""
    if outcome.status == "broken":
        yield f"{outcome.id} broke: {outcome.message}"
    elif outcome.status == "failed" and outcome.no_sentence:
        yield f"{outcome.id} fails without a sentence for the learner"


def alike(booted: Report, cloned: Report) -> Verdict:
    """A cloned machine says what a booted one says."""
    return Verdict(
        f"{one.id} {one.status} in the booted machine and {two.status} in the clone"
        for one, two in zip(booted.checks, cloned.checks, strict=True)
        if one.status != two.status
    )


def agreed(first: Report, second: Report) -> Verdict:
    """The same machine, asked twice, says the same thing."""
    return Verdict(
        f"{one.id} {one.status} first and {two.status} the second time"
        for one, two in zip(first.checks, second.checks, strict=True)
        if one.status != two.status
    )
