# SPDX-License-Identifier: Apache-2.0
"""The stages as values, what the checks should say at each, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bugbox.errors import UserError
from bugbox.puzzle import judge, leak, tree
from bugbox.puzzle.check import NO_CLONE, Outcome, Report
from bugbox.puzzle.definition import load
from bugbox.puzzle.junit import junit
from bugbox.puzzle.matrix import NEEDS, Case, Sheet, Stage, chosen_stages, needed
from bugbox.puzzle.script import Script

ALL = frozenset(Stage)
READ_ME = Path(__file__).parents[2] / "puzzles/read-me"


def outcome(id: str, status: str, message: str = "No.", **more: object) -> Outcome:
    told = "" if status == "passed" else message
    return Outcome(id=id, title=id, status=status, message=told, **more)  # type: ignore[arg-type]


def report(*outcomes: Outcome) -> Report:
    return Report(checks=outcomes)


def script(text: str) -> Script:
    return Script(name="wrong.d/no.sh", file=Path("no.sh"), text=text.encode())


# Stages.


def test_a_stage_needs_only_what_comes_before_it() -> None:
    order = [*Stage]
    for stage, needs in NEEDS.items():
        assert all(order.index(need) < order.index(stage) for need in needs)
    assert needed(Stage.REBOOT) == {Stage.SOLVE, Stage.BOOT, Stage.BUILD, Stage.LINT}


def test_only_names_stages_and_says_the_nearest() -> None:
    assert chosen_stages(()) == ALL
    assert chosen_stages(["wrong", "leak"]) == {Stage.WRONG, Stage.LEAK}
    with pytest.raises(UserError) as error:
        chosen_stages(["rebot"])
    assert error.value.hint == "did you mean reboot?"


def test_a_sheet_passes_when_all_is_done_and_nothing_failed() -> None:
    sheet = Sheet(puzzle="tiny", chosen=ALL)
    sheet.add(Case(stage=Stage.LINT, name="tiny", status="passed"))
    assert not sheet.passed and sheet.status(Stage.BOOT) == "interrupted"
    sheet.complete = True
    assert sheet.passed and sheet.status(Stage.BOOT) == "skipped"
    sheet.add(Case(stage=Stage.WRONG, name="a", status="passed"))
    sheet.add(Case(stage=Stage.WRONG, name="b", status="failed", message="no check refuses it"))
    assert not sheet.passed and sheet.status(Stage.WRONG) == "failed"


def test_what_kept_a_stage_from_being_run_is_told() -> None:
    sheet = Sheet(puzzle="tiny", chosen=frozenset({Stage.SOLVE}), complete=True)
    sheet.add(Case(stage=Stage.LINT, name="tiny", status="passed"))
    sheet.add(Case(stage=Stage.BUILD, name="build", status="failed", message="exit 1"))
    assert sheet.shown() == [Stage.BUILD, Stage.SOLVE]
    assert sheet.why_skipped(Stage.SOLVE) == "not without build"


def test_failures_come_in_the_order_of_the_stages() -> None:
    sheet = Sheet(puzzle="tiny", chosen=ALL)
    for stage in (Stage.WRONG, Stage.LINT, Stage.BOOT):
        sheet.add(Case(stage=stage, name=str(stage), status="failed"))
    assert [case.stage for case in sheet.failures] == [Stage.LINT, Stage.BOOT, Stage.WRONG]


def test_junit_has_a_suite_a_puzzle_and_nothing_that_xml_forbids() -> None:
    sheet = Sheet(puzzle="tiny", chosen=ALL, complete=True, seconds=3.5)
    sheet.add(Case(stage=Stage.LINT, name="tiny", status="passed", seconds=0.25))
    sheet.add(
        Case(
            stage=Stage.SOLVE,
            name="solve.sh",
            status="failed",
            message="x\x00\x1b[2J",
            ran="solve.sh",
            output="out\x07put",
        )
    )
    root = ElementTree.fromstring(junit([sheet]))
    suite = root.find("testsuite")
    assert suite is not None
    assert (root.get("tests"), root.get("failures")) == ("10", "1")
    assert suite.get("name") == "tiny" and suite.get("time") == "3.500"
    failed = [case for case in suite if case.find("failure") is not None]
    assert [case.get("classname") for case in failed] == ["tiny.solve"]
    failure = failed[0].find("failure")
    assert failure is not None and failure.get("message") == "x\\x00\\x1b[2J"
    assert failure.text == "ran: solve.sh\nout\\x07put"
    assert len(suite.findall("testcase/skipped")) == 8


# Verdicts.


def test_untouched_every_root_check_fails_with_a_sentence() -> None:
    puzzle = load(READ_ME)  # only `readable` needs no other
    ids = [check.id for check in puzzle.checks]
    rest = [outcome(id, "skipped", "first: that") for id in ids[1:]]
    assert judge.untouched(puzzle, report(outcome(ids[0], "failed"), *rest)) == ()
    passing = judge.untouched(puzzle, report(outcome(ids[0], "passed"), *rest))
    assert passing.message == "readable passes on the untouched machine"
    dumb = judge.untouched(puzzle, report(outcome(ids[0], "failed", no_sentence=True), *rest))
    assert dumb.message == "readable fails without a sentence for the learner"
    broken = judge.untouched(puzzle, report(outcome(ids[0], "broken", "status 3"), *rest))
    assert broken.message == "readable broke: status 3"
    without = report(outcome(ids[0], "failed", "needs jq", no_program=True), *rest)
    assert "cannot run on the untouched machine" in judge.untouched(puzzle, without).message


def test_solved_means_that_nothing_fails_but_what_cannot_be_run_here() -> None:
    assert judge.solved(report(outcome("a", "passed"))) == ()
    later = outcome("b", "skipped", NO_CLONE, not_here=True)
    assert judge.solved(report(outcome("a", "passed"), later)) == ()
    assert judge.solved(report(outcome("a", "failed"))).message == "a still fails: No."


def test_a_wrong_fix_is_refused_by_the_check_it_names() -> None:
    named = script("#!/bin/sh\n# refused by: b\n")
    passed, failed = outcome("a", "passed"), outcome("b", "failed")
    assert judge.refused(report(passed, failed), named) == ()
    other = report(outcome("a", "failed"), outcome("b", "skipped", "first: a"))
    message = judge.refused(other, named).message
    assert message == "b should have refused it and was skipped (first: a); a refused it"
    assert "passed" in judge.refused(report(passed, outcome("b", "passed")), named).message
    anything = script("#!/bin/sh\n")
    assert judge.refused(report(passed, failed), anything) == ()
    assert judge.refused(report(passed), anything).message == "no check refuses it"


def test_two_checks_that_disagree_are_told() -> None:
    first, second = report(outcome("a", "failed")), report(outcome("a", "passed"))
    assert judge.agreed(first, second).message == "a failed first and passed the second time"
    assert judge.agreed(first, first) == ()


def test_a_clone_that_says_something_else_is_told() -> None:
    booted, cloned = report(outcome("a", "failed")), report(outcome("a", "broken"))
    message = judge.alike(booted, cloned).message
    assert message == "a failed in the booted machine and broken in the clone"
    assert judge.alike(booted, booted) == ()


# Files of the machine.


def test_a_tree_tells_what_changed() -> None:
    before = tree.parse(b"1 81a4 t|/etc/a\n2 81a4 t|/etc/b|with a bar\n3 41ed t|/etc\n")
    after = tree.parse(b"1 81a4 T|/etc/a\n3 41ed t|/etc\n4 81a4 t|/etc/c\n")
    assert tree.changed(before, after) == {b"/etc/a", b"/etc/b|with a bar", b"/etc/c"}
    assert tree.changed(before, before) == set()


def test_what_the_machine_does_by_itself_is_not_blamed_on_checks() -> None:
    suspects = {b"/var/spool/q/2", b"/etc/passwd"}
    meanwhile = {b"/var/spool/q", b"/var/spool/q/1"}
    assert tree.own_doing(suspects, meanwhile) == {b"/var/spool/q/2"}


# Leaks.


def test_a_line_of_the_solution_in_the_layer_is_a_leak() -> None:
    puzzle = load(READ_ME)
    hidden = leak.secrets(puzzle, ["TOP SECRET"])
    line = b"sudo setfacl --remove user:learner /srv/post/learner"
    files = [
        ("root/.bash_history", [b"ls\n", line[:9], line[9:] + b"\n"]),
        ("srv/fine", [b"set -eu\nnothing to see here, move along\n"]),
        ("srv/secret", [b"\0\0TOP SECRET\0"]),
    ]
    found = [*leak.find(hidden, iter(files))]
    assert [(each.path, each.line) for each in found] == [
        ("root/.bash_history", 2),
        ("srv/secret", 1),
    ]
    assert "solve.sh" in str(found[0]) and "setfacl" in str(found[0])


def test_what_the_walkthrough_quotes_is_no_secret() -> None:
    puzzle = load(READ_ME.parent / "deleted-but-open")
    hidden = leak.secrets(puzzle)
    assert b'mv "$log" "$outgoing"' not in hidden.lines
    assert "the walkthrough" in hidden.lines.values()


def test_what_the_description_shows_is_no_secret() -> None:
    puzzle = load(READ_ME)
    hidden = leak.secrets(puzzle)
    for line in puzzle.description.splitlines():
        assert " ".join(line.split()).encode() not in hidden.lines
