# SPDX-License-Identifier: Apache-2.0
"""Hints: numbered, and their gates inform."""

from dataclasses import replace
from pathlib import Path

import pytest

from bugbox.errors import NotFound
from bugbox.puzzle.definition import HintText, Puzzle, load
from bugbox.puzzle.hint import every_hint, give, next_hint
from bugbox.puzzle.scaffold import create
from bugbox.puzzle.variants import fill, names


@pytest.fixture
def puzzle(tmp_path: Path) -> Puzzle:
    hints = (
        HintText(title="Where", text="Look at {{PLACE}}."),
        HintText(title="What", text="At the bits.", not_before_s=240.0, cost=5),
        HintText(title="Which", text="The x.", not_before_s=60.0, not_before_checks=3),
    )
    return replace(load(create(tmp_path, "demo")), hints=hints)


def test_the_shape_of_the_json(puzzle: Puzzle) -> None:
    assert give(puzzle, 2, elapsed_s=10).as_json() == {
        "n": 2,
        "of": 3,
        "title": "What",
        "text": "At the bits.",
        "cost": 5,
        "next_in_s": None,
    }


def test_values_are_filled_in(puzzle: Puzzle) -> None:
    assert give(puzzle, 1, values={"PLACE": "/srv"}).text == "Look at /srv."
    assert give(puzzle, 1).text == "Look at {{PLACE}}."
    assert fill("{{A}}{{B}} {{a}} {{ A }}", {"A": "x"}) == "x{{B}} {{a}} {{ A }}"
    assert names("a {{A}} {{B_2}}") == [("A", 2), ("B_2", 8)]


def test_a_number_is_given_whatever_its_gate_says(puzzle: Puzzle) -> None:
    assert give(puzzle, 3).text == "The x."
    assert [hint.text for hint in every_hint(puzzle)][1:] == ["At the bits.", "The x."]
    assert give(puzzle, 1, elapsed_s=100.5).next_in_s == 140


def test_the_next_one_says_how_long_its_author_would_wait(puzzle: Puzzle) -> None:
    first = next_hint(puzzle, 0)
    assert (first.n, first.next_in_s) == (1, 240)
    held = next_hint(puzzle, 1, elapsed_s=30)
    assert (held.n, held.text, held.next_in_s) == (2, None, 210)
    assert next_hint(puzzle, 1, elapsed_s=30, now=True).text == "At the bits."
    assert next_hint(puzzle, 1, elapsed_s=240).text == "At the bits."


def test_a_gate_of_checks_has_no_time(puzzle: Puzzle) -> None:
    held = next_hint(puzzle, 2, elapsed_s=999, failed_checks=2)
    assert (held.text, held.next_in_s) == (None, None)
    assert next_hint(puzzle, 2, elapsed_s=999, failed_checks=3).text == "The x."
    assert next_hint(puzzle, 2, elapsed_s=0, failed_checks=3).next_in_s == 60


def test_after_the_last_comes_the_last(puzzle: Puzzle) -> None:
    assert next_hint(puzzle, 3).n == 3
    assert next_hint(puzzle, 3).text == "The x."


def test_numbers_that_are_none(puzzle: Puzzle) -> None:
    for n in (0, 4, -1):
        with pytest.raises(NotFound, match=f"no hint {n}"):
            give(puzzle, n)
    with pytest.raises(NotFound, match="has no hints"):
        next_hint(replace(puzzle, hints=()), 0)


def test_all_of_them_know_the_time(puzzle: Puzzle) -> None:
    assert every_hint(puzzle, elapsed_s=300.0)[0].next_in_s == 0
    assert every_hint(puzzle)[0].next_in_s == 240
