# SPDX-License-Identifier: Apache-2.0
"""One table for a whole catalogue, whole or interrupted."""

from __future__ import annotations

from bugbox.cli.sheets import ending, table
from bugbox.puzzle.matrix import Case, Sheet, Stage, Status

SOME = frozenset({Stage.LINT, Stage.BUILD, Stage.BOOT})


def sheet(name: str, *cases: tuple[Stage, Status, float], seconds: float = 0.0) -> Sheet:
    made = Sheet(puzzle=name, chosen=SOME, seconds=seconds)
    for stage, status, took in cases:
        made.add(Case(stage=stage, name="x", status=status, seconds=took))
    return made


def three() -> list[Sheet]:
    whole = (
        (Stage.LINT, "passed", 0.2),
        (Stage.BUILD, "passed", 6.0),
        (Stage.BUILD, "passed", 5.0),
        (Stage.BOOT, "passed", 12.4),
    )
    good = sheet("good", *whole, seconds=18.7)  # type: ignore[arg-type]
    good.complete = True
    bad = sheet(
        "bad-and-long", (Stage.LINT, "passed", 0.1), (Stage.BUILD, "failed", 4.0), seconds=4.2
    )
    bad.complete = True
    return [good, bad, sheet("late")]


def test_a_line_for_each_puzzle() -> None:
    assert table(three()) == [
        "puzzle        lint  build  boot  total    result",
        "good             0     11    12     19    passed",
        "bad-and-long     0     !4     -      4    failed",
        "late             .      .     .         not done",
    ]


def test_how_far_it_came() -> None:
    sheets = three()
    assert ending(sheets[:2], interrupted=False, took="5 s") == "1 of 2 passed in 5 s"
    said = ending(sheets, interrupted=True, took="1 min 3 s")
    assert said == "interrupted after 1 min 3 s: 2 of 3 tested, 1 passed, 1 not done"
