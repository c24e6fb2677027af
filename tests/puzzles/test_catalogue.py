# SPDX-License-Identifier: Apache-2.0
"""Every puzzle of the catalogue passes its own test on real machines."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bugbox.paths import shipped_puzzles
from bugbox.puzzle.catalogue import entries, names
from bugbox.puzzle.definition import load
from bugbox.puzzle.lint import lint
from bugbox.puzzle.matrix import Stage
from bugbox.puzzle.script import refused_by
from tests.conftest import CATALOGUE, Bugbox

ALL = bool(os.environ.get("BUGBOX_TEST_ALL"))
REPEAT = "3" if ALL else "1"
PUZZLES = names([shipped_puzzles()])


def test_all_of_it_is_tested() -> None:
    broken = [entry.error for entry in entries([shipped_puzzles()]) if entry.puzzle is None]
    assert broken == []
    assert set(CATALOGUE) < set(PUZZLES)


@pytest.mark.parametrize("name", PUZZLES)
def test_it_is_whole(name: str) -> None:
    puzzle = load(shipped_puzzles() / name)
    assert [*map(str, lint(puzzle.folder, PUZZLES))] == []
    assert puzzle.ready and puzzle.walkthrough and puzzle.debrief
    assert len(puzzle.hints) == 3
    assert len(puzzle.wrong) >= 2
    assert [script.name for script in puzzle.wrong if refused_by(script) is None] == []
    told = puzzle.manifest
    assert told.difficulty and told.estimated_time and told.categories and told.skills


@pytest.mark.vm
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", PUZZLES)
def test_it_does_what_it_promises(bugbox: Bugbox, name: str, tmp_path: Path) -> None:
    if name not in CATALOGUE and not ALL:
        pytest.skip("only with BUGBOX_TEST_ALL=1: three puzzles are enough for every day")
    bugbox.env["BUGBOX_TEMPLATES"] = "on"  # solutions and wrong fixes are tried in clones
    report = tmp_path / "junit.xml"
    words = ("test", name, "--repeat", REPEAT, "--junit", str(report), "--json")
    done = bugbox(*words, ok=(0, 1), timeout=2100)
    (puzzle,) = json.loads(done.stdout)["puzzles"]
    wrong = [
        (stage["stage"], case["name"], case["message"], case["output"])
        for stage in puzzle["stages"]
        for case in stage["cases"]
        if case["status"] == "failed"
    ]
    assert not wrong and puzzle["passed"] and done.returncode == 0, wrong
    told = {stage["stage"]: stage["status"] for stage in puzzle["stages"]}
    assert list(told) == [*Stage]
    assert set(told.values()) == {"passed"}, told
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None and suite.get("failures") == "0"
