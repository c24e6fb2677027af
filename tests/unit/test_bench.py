# SPDX-License-Identifier: Apache-2.0
"""What the benchmark makes of its values; that it runs at all is shown by running it."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

import pytest

from bench.census import census, more
from bench.page import limits_svg, markdown, svg
from bench.promises import LIMITS, PROMISES, judge, measure
from bench.race import Missing, race
from bench.series import Series, percentile, ratio
from bugbox.paths import Home

TEXT = "{http://www.w3.org/2000/svg}text"
ROOT = Path(__file__).parents[2]


def test_percentile_is_the_nearest_rank() -> None:
    values = list(range(1, 101))
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7
    assert percentile([3, 1, 2], 100) == 3
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_ratio_is_taken_round_by_round() -> None:
    # Both slow down tenfold half-way: the ratio of each round stays.
    found = ratio([20, 20, 200], [10, 10, 100])
    assert (found.p50, found.low, found.high) == (2, 2, 2)
    with pytest.raises(ValueError, match="no pair"):
        ratio([], [1])


def test_spread_tells_the_noise() -> None:
    assert Series("a", "a", "ms", [100.0] * 10).spread == 0
    assert Series("a", "a", "ms", [50.0, 100.0, 150.0, 100.0, 60.0, 140.0]).spread > 0.2


class Runner:
    def __init__(self, name: str, calls: list[str], missing: str = "") -> None:
        self.name = self.title = name
        self.calls, self.missing = calls, missing

    def __enter__(self) -> Self:
        if self.missing:
            raise Missing(self.missing)
        self.calls.append(f"+{self.name}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.calls.append(f"-{self.name}")

    def once(self) -> dict[str, float]:
        self.calls.append(self.name)
        return {"": float(len(self.calls))}


def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []
    series = race([Runner("a", calls), Runner("b", calls)], 2)
    assert calls == ["+a", "+b", "a", "b", "a", "b", "a", "b", "-b", "-a"]
    assert [(s.name, len(s.values)) for s in series] == [("a", 2), ("b", 2)]


def test_a_measure_may_have_a_unit_of_its_own() -> None:
    class Weighed(Runner):
        def once(self) -> dict[str, float]:
            return {"weight [MiB]": 3.5, "time": 7.0}

    weight, taken = race([Weighed("a", [])], 1)
    assert (weight.name, weight.title, weight.unit) == ("a.weight", "a, weight", "MiB")
    assert (taken.name, taken.unit) == ("a.time", "ms")


def test_one_time_may_give_many_values_or_none() -> None:
    class Crowd(Runner):
        def once(self) -> dict[str, float | list[float]]:
            self.calls.append("")
            return {"each": [1.0, 2.0]} | ({"all": 7.0} if len(self.calls) == 3 else {})

    each, every = race([Crowd("a", [])], 2, warmup=0)
    assert (each.values, every.values) == ([1, 2, 1, 2], [7])


def test_who_cannot_run_is_told_and_the_others_run() -> None:
    calls: list[str] = []
    missing, ran = race([Runner("a", calls, "no engine"), Runner("b", calls)], 1)
    assert (missing.note, missing.values) == ("no engine", [])
    assert len(ran.values) == 1
    assert "left out: no engine" in markdown([missing, ran], [])


def test_a_promise_is_judged_only_where_both_sides_ran() -> None:
    promise = PROMISES[0]
    ours = Series(promise.ours, "ours", "ms", [1000.0, 1000.0])
    other = Series(promise.other, "other", "ms", [5000.0, 9000.0])
    assert judge([ours]) == []
    (verdict,) = judge([ours, other])
    assert verdict.kept
    assert verdict.ratio.p50 == 7
    assert "| kept |" in markdown([ours, other], [verdict])
    slow = Series(promise.other, "other", "ms", [2000.0, 2000.0])
    assert "**not kept**" in markdown([ours, slow], judge([ours, slow]))


def test_a_limit_is_judged_by_the_value_that_it_names() -> None:
    by_series = {each.series: each for each in LIMITS}
    assert by_series.keys() >= {"active.a keystroke's echo", "rounds.left behind"}
    typed = Series("active.a keystroke's echo", "echo", "ms", [10.0] * 99 + [900.0])
    left = Series("rounds.left behind", "left", "things", [0.0, 2.0])
    tail = Series("standby.to ready", "standby", "ms", [10.0, 10.0, 45.0])
    found = {each.limit.series: each for each in measure([typed, left, tail])}
    assert [(each.value, each.kept) for each in found.values()] == [
        (4.5, False),
        (10, True),
        (2, False),
    ]
    table = markdown([typed, left, tail], [], [*found.values()])
    assert table.count("| **not kept** |") == 2
    picture = limits_svg([*found.values()], "this <machine>")
    texts = [text.text for text in ElementTree.fromstring(picture).iter(TEXT)]
    assert "2 of 0" in texts and "10 of 200 ms" in texts
    assert measure([Series("rounds.left behind", "left", "things")]) == []


def test_every_limit_is_of_a_race_that_there_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    races = set(re.findall(r"[a-z]+", done.stdout.partition("one or more of:")[2]))
    assert {each.series.partition(".")[0] for each in LIMITS} - {"standby"} <= races


def test_what_a_home_holds_is_counted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    before = census(home)
    assert not before["processes"] and not before["the keeper's descriptors"]
    held = home.root / "held"
    script = f"import time; f = open({str(held)!r}, 'w'); print(flush=True); time.sleep(60)"
    argv = [sys.executable, "-c", script]
    with (
        socket.socket(socket.AF_UNIX) as listener,
        subprocess.Popen(argv, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        listener.bind(str(home.runtime / "socket"))
        grown = more(before, census(home))
        process.kill()
    assert grown.keys() == {
        "processes",
        "sockets with a name",
        "files",
        "files at run time",
    }
    assert grown["files"] == [str(held)]
    assert grown["processes"][0].startswith(f"{process.pid} {sys.executable} -c")
    held.unlink()
    (home.runtime / "socket").unlink()
    assert more(before, census(home)) == {}
    shutil.rmtree(home.runtime)


def test_the_picture_is_well_formed_and_names_everybody() -> None:
    shown = [Series("cold", "a <b> & c", "ms", [10.0, 2000.0]), Series("x", "y", "ms", note="no")]
    tree = ElementTree.fromstring(svg(shown, "this machine"))
    texts = [element.text for element in tree.iter(TEXT)]
    assert "a <b> & c" in texts
    assert "y" not in texts


def test_a_race_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "sprint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no race sprint; there are: cold" in done.stderr
