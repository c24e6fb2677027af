# SPDX-License-Identifier: Apache-2.0
"""How fast this host's time stamp counter runs, for the guest's `tsc_early_khz`.

Under software emulation the guest's counter is the host's, and the kernel takes the number we
give as the truth: at half of it the guest's clock runs at twice the speed. Nothing the host says
is good enough (/proc/cpuinfo has a laptop's frequency of the moment), so the counter itself is
read against CLOCK_MONOTONIC_RAW, once a boot of the host. Each later use looks again for a
moment: a host that is itself a virtual machine may have moved to other hardware meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from bugbox.host.libc import timestamp_counter

__all__ = ["boot_id", "host_tsc_khz", "measure_khz"]

log = logging.getLogger(__name__)

Counter = Callable[[], int]

#: Two measurements may differ by so much and still count as one truth.
_TOLERANCE = 0.0005
_LONG, _SHORT = 0.2, 0.01


def boot_id() -> str:
    """Return the id of this boot of the host: what was measured holds until it changes."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def host_tsc_khz(cache: Path) -> int | None:
    """Return the counter's kHz, from `cache` (a JSON file) when it still holds.

    None: this host's counter cannot be read or does not run evenly; the guest's kernel then
    has to calibrate it, which it fails to do now and then.
    """
    counter = timestamp_counter()
    if counter is None:
        return None
    cached = _read(cache)
    if cached is not None and _alike(cached, measure_khz(counter, _SHORT), 2 * _TOLERANCE):
        return cached
    khz = _measure_twice(counter)
    if khz is None:
        log.warning("the time stamp counter does not run evenly here")
        return None
    _write(cache, khz)
    return khz


def measure_khz(counter: Counter, seconds: float) -> int:
    """Count for about `seconds`."""
    count_0, time_0 = _instant(counter)
    time.sleep(seconds)
    count_1, time_1 = _instant(counter)
    return round((count_1 - count_0) * 1_000_000 / (time_1 - time_0))


def _measure_twice(counter: Counter) -> int | None:
    """Measure until two in a row agree; rounded to 10 kHz, so that most boots agree on it."""
    before = measure_khz(counter, _LONG)
    for _ in range(5):
        after = measure_khz(counter, _LONG)
        if _alike(before, after, _TOLERANCE):
            return round((before + after) / 2 / 10) * 10
        before = after
    return None


def _instant(counter: Counter) -> tuple[int, int]:
    """Read counter and clock (ns) at one moment: the closest of a few tries."""
    tries = []
    for _ in range(8):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = counter()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        tries.append((after - before, count, (before + after) // 2))
    _, count, when = min(tries)
    return count, when


def _alike(one: int, other: int, tolerance: float) -> bool:
    return abs(one - other) <= tolerance * max(one, other)


def _read(cache: Path) -> int | None:
    try:
        kept = json.loads(cache.read_text())
        if kept["boot_id"] == boot_id() and isinstance(kept["khz"], int) and kept["khz"] > 0:
            return int(kept["khz"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _write(cache: Path, khz: int) -> None:
    """Keep it. A cache that cannot be written costs half a second each time, nothing more."""
    fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps({"boot_id": boot_id(), "khz": khz}) + "\n")
        fresh.replace(cache)
    except OSError as error:
        log.warning("%s: %s", cache, error)
