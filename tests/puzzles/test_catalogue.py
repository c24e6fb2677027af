# SPDX-License-Identifier: Apache-2.0
"""Every puzzle of the catalogue passes its own test on real machines."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bugbox.puzzle.matrix import Stage
from tests.conftest import CATALOGUE, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

REPEAT = "3" if os.environ.get("BUGBOX_TEST_ALL") else "1"


@pytest.mark.parametrize("name", CATALOGUE)
def test_it_does_what_it_promises(bugbox: Bugbox, name: str, tmp_path: Path) -> None:
    bugbox.env["BUGBOX_TEMPLATES"] = "on"  # solutions and wrong fixes are tried in clones
    report = tmp_path / "junit.xml"
    words = ("test", name, "--repeat", REPEAT, "--junit", str(report), "--json")
    done = bugbox(*words, ok=(0, 1), timeout=1500)
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
