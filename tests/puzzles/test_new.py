# SPDX-License-Identifier: Apache-2.0
"""What `bugbox new` writes passes its own test as it is."""

import os
from pathlib import Path

import pytest

from bugbox.puzzle.scaffold import TEMPLATES
from tests.conftest import Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_puzzle_is_green(bugbox: Bugbox, tmp_path: Path, template: str) -> None:
    if template != TEMPLATES[0] and not os.environ.get("BUGBOX_TEST_ALL"):
        pytest.skip("only with BUGBOX_TEST_ALL=1: one template is enough for every day")
    bugbox("new", "my-own", "--template", template, cwd=tmp_path)
    done = bugbox("test", cwd=tmp_path / "my-own", ok=(0, 1), timeout=1500)
    assert done.returncode == 0, done.stdout.decode()
    assert b"1 of 1 passed" in done.stdout
