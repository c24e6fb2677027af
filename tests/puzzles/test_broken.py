# SPDX-License-Identifier: Apache-2.0
"""Deliberately broken puzzles: each fails at the stage that is there for its fault."""

import os
import time
from pathlib import Path

import pytest

from bugbox.puzzle.lint import lint
from tests.conftest import Bugbox
from tests.puzzles.broken_puzzles import AT_LINT, ON_A_MACHINE, failures, make

#: Enough for every day: what only a real machine can show.
EVERY_DAY = {"writing-check", "breaks-again"}
ALL = bool(os.environ.get("BUGBOX_TEST_ALL"))


@pytest.mark.parametrize("name", AT_LINT)
def test_lint_finds_it(tmp_path: Path, name: str) -> None:
    begun = time.monotonic()
    errors = [each for each in lint(make(tmp_path, name)) if each.level == "error"]
    assert any(AT_LINT[name] in each.message for each in errors), errors
    # Neither a bomb nor 100 MiB are taken in.
    assert time.monotonic() - begun < 30


@pytest.mark.vm
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ON_A_MACHINE)
def test_its_stage_finds_it(bugbox: Bugbox, tmp_path: Path, name: str) -> None:
    if name not in EVERY_DAY and not ALL:
        pytest.skip("only with BUGBOX_TEST_ALL=1: a fake machine shows it every day")
    stage, message = ON_A_MACHINE[name]
    folder = make(tmp_path, name)
    failed = failures(bugbox, folder, stage)
    assert set(failed) == {stage} and message in failed[stage], failed
