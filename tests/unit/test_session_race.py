# SPDX-License-Identifier: Apache-2.0
"""Boots measured in turn: what is believed of a difference."""

import random

from bugbox.session.race import Lap, beats, noise, summary


def laps(*values: float) -> list[Lap]:
    return [Lap(kernel=v, init=v + 0.5, ready=v + 2) for v in values]


def test_noise_ignores_what_a_busy_host_does_to_one_boot():
    assert noise([1.0]) == 0.0
    assert noise([1.0, 1.0, 1.0, 1.0, 9.0]) == 0.0
    assert noise([1.0, 2.0, 3.0, 4.0, 5.0]) == 1.0


def test_a_clear_gain_is_believed_and_chance_is_not():
    assert beats([1.0, 1.01, 1.02, 1.0], [2.0, 2.01, 2.02, 2.1])
    assert not beats([2.0, 2.01, 2.02, 2.1], [1.0, 1.01, 1.02, 1.0])
    assert not beats([1.0, 1.0], [1.0, 1.0])
    # A tenth of a percent, without noise: not worth an argument.
    assert not beats([0.999] * 5, [1.0] * 5)


def test_equal_boots_are_rarely_believed_to_differ():
    dice = random.Random(1)
    wrong = 0
    for _ in range(500):
        new, old = ([dice.gauss(1.0, 0.1) for _ in range(6)] for _ in range(2))
        wrong += beats(new, old)
    assert wrong < 500 * 0.06


def test_a_summary_measures_by_the_first():
    rows = summary({"a": laps(1.0, 1.2, 1.1), "b": laps(0.5, 0.6, 0.55)})
    assert [row["name"] for row in rows] == ["a", "b"]
    assert rows[0]["kernel"] == {"p50": 1.1, "noise": 0.05, "ratio": 1.0}
    assert rows[1]["kernel"]["ratio"] == 0.5
    assert rows[1]["ready"]["p50"] == 2.55
