# SPDX-License-Identifier: Apache-2.0
"""An imported scenario, played: set up as it was, checked by its scripts, solved by its text."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

SCENARIO = Path(__file__).parents[1] / "data/scenario/dead-letters"


def statuses(bugbox: Bugbox, id: str) -> list[str]:
    report: Any = bugbox.json("check", id, ok=(0, 1), timeout=120)
    return [each["status"] for each in report["checks"]]


def test_a_scenario_is_set_up_checked_and_solved(bugbox: Bugbox, tmp_path: Path) -> None:
    told = bugbox("import", "killercoda", str(SCENARIO), "--json", cwd=tmp_path)
    assert b'"step 2"' in told.stdout
    folder = tmp_path / "dead-letters"
    id = bugbox.start(str(folder))
    assert statuses(bugbox, id) == ["failed", "skipped"]
    # Who logs in is root, as there.
    assert bugbox("shell", id, "--", "id", "-un").stdout == b"root\n"
    text = (folder / "solve.sh").read_text()
    first, second = text.partition("chmod")[0], "".join(text.partition("chmod")[1:])
    bugbox("shell", id, "--", "bash", "-c", first)
    assert statuses(bugbox, id) == ["passed", "failed"]
    bugbox("shell", id, "--", "/opt/post/bin/sort-letters", ok=(1,))
    bugbox("shell", id, "--", "bash", "-c", second)
    assert statuses(bugbox, id) == ["passed", "passed"]
