# SPDX-License-Identifier: Apache-2.0
"""The rate of the time stamp counter."""

import json
import time
from pathlib import Path

import pytest

from bugbox.host import libc
from bugbox.machine.qemu import tsc


class Counter:
    """A counter that runs at a rate of our choice."""

    def __init__(self, khz: int) -> None:
        self.khz = khz
        self.reads = 0

    def __call__(self) -> int:
        self.reads += 1
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) * self.khz // 1_000_000


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    made = Counter(2_600_000)
    monkeypatch.setattr(tsc, "timestamp_counter", lambda: made)
    return made


def test_measured_and_kept(counter: Counter, tmp_path: Path) -> None:
    cache = tmp_path / "tsc.json"
    khz = tsc.host_tsc_khz(cache)
    assert khz is not None and abs(khz - 2_600_000) < 2600, khz  # 0.1 %
    assert json.loads(cache.read_text()) == {"boot_id": tsc.boot_id(), "khz": khz}
    measuring, counter.reads = counter.reads, 0
    assert tsc.host_tsc_khz(cache) == khz
    assert counter.reads <= measuring / 2, "a kept value is looked at once"
    assert [p.name for p in tmp_path.iterdir()] == ["tsc.json"]


@pytest.mark.parametrize(
    "kept",
    [
        "not json",
        "[]",
        '{"boot_id": "another", "khz": 2600000}',
        '{"boot_id": "BOOT", "khz": "2600000"}',
        # The host moved to other hardware under us.
        '{"boot_id": "BOOT", "khz": 3100000}',
        '{"boot_id": "BOOT", "khz": 2606000}',
    ],
)
def test_what_does_not_hold_any_more_is_measured_again(
    counter: Counter, tmp_path: Path, kept: str
) -> None:
    cache = tmp_path / "tsc.json"
    cache.write_text(kept.replace("BOOT", tsc.boot_id()))
    khz = tsc.host_tsc_khz(cache)
    assert khz is not None and abs(khz - 2_600_000) < 2600


def test_a_counter_that_does_not_run_evenly_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rates = iter(range(1_000_000, 9_000_000, 10_000))
    monkeypatch.setattr(tsc, "timestamp_counter", lambda: lambda: 0)
    monkeypatch.setattr(tsc, "measure_khz", lambda counter, seconds: next(rates))
    assert tsc.host_tsc_khz(tmp_path / "tsc.json") is None
    assert not (tmp_path / "tsc.json").exists()


def test_where_it_cannot_be_read_there_is_no_rate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tsc, "timestamp_counter", lambda: None)
    assert tsc.host_tsc_khz(tmp_path / "tsc.json") is None


def test_a_cache_that_cannot_be_written_is_no_error(counter: Counter, tmp_path: Path) -> None:
    assert tsc.host_tsc_khz(tmp_path / "missing" / "tsc.json") is not None


def test_the_real_counter_counts_at_an_even_rate() -> None:
    counter = libc.timestamp_counter()
    if counter is None:
        pytest.skip("this host's counter cannot be read")
    one, two = counter(), counter()
    assert two > one
    first, second = tsc.measure_khz(counter, 0.1), tsc.measure_khz(counter, 0.1)
    assert abs(first - second) < first * 0.001, "0.1 %"
