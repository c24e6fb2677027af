# SPDX-License-Identifier: Apache-2.0
"""What a solution is worth, and what of several failures is told."""

from pathlib import Path

import pytest
from test_puzzle_definition import MINIMAL, script

from bugbox.puzzle.check import Outcome, Report
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.score import points, told

HINTS = """\
hints:
  - {title: First, file: hints/1.md, cost: 10}
  - {title: Second, file: hints/2.md, cost: 95}
"""


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "checks").mkdir(parents=True)
    (folder / "hints").mkdir()
    for name in ("description.md", "hints/1.md", "hints/2.md"):
        (folder / name).write_text("Some text.\n")
    script(folder / "checks/one.sh")
    return folder


def wishing(folder: Path, more: str) -> Puzzle:
    (folder / "puzzle.yaml").write_text(MINIMAL + more)
    return load(folder)


@pytest.mark.parametrize(
    ("failed", "hints", "gave_up", "worth"),
    [
        (0, (), False, 105),
        (1, (), False, 100),
        (1, (1,), False, 90),
        (0, (1,), False, 95),
        (1, (1, 2), False, 0),
        (0, (), True, 0),
        (1, (7,), False, 100),  # the puzzle had more hints once
    ],
)
def test_what_a_solution_is_worth(
    demo: Path, failed: int, hints: tuple[int, ...], gave_up: bool, worth: int
) -> None:
    puzzle = wishing(demo, HINTS + "scoring: {points: 100, first_try_bonus: 5}\n")
    assert points(puzzle, failed_checks=failed, hints=hints, gave_up=gave_up) == worth


def test_a_puzzle_without_points_has_none_to_give(demo: Path) -> None:
    assert points(wishing(demo, ""), failed_checks=0, hints=(), gave_up=False) is None


def test_of_several_failures_the_first_may_be_the_only_one_told(demo: Path) -> None:
    def outcome(id: str, status: str, message: str) -> Outcome:
        return Outcome(id=id, title=id, status=status, message=message, detail="x")  # type: ignore[arg-type]

    report = Report(
        checks=(
            outcome("a", "passed", ""),
            outcome("b", "failed", "b is wrong"),
            outcome("c", "broken", "it broke"),
            outcome("d", "failed", "d is wrong"),
        )
    )
    assert told(wishing(demo, ""), report) is report
    first = told(wishing(demo, "check_policy: {show_failures: first}\n"), report)
    assert [each.message for each in first.checks] == ["", "b is wrong", "it broke", ""]
    assert [each.status for each in first.checks] == [each.status for each in report.checks]
    assert first.solved is report.solved is False
