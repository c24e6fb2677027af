# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [RACE ...] [--rounds N]`: results under bench/out as JSON, Markdown and SVG.

Of some races only: in files of their own, `results-active.json` and so on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.copies import BusyFork, CheckInClone, Fork
from bench.crowd import Active, Burst, Many, Rounds
from bench.docker import Docker
from bench.ours import Bare, Clone, Cold, Standby
from bench.page import limits_svg, markdown, svg
from bench.promises import judge, measure
from bench.race import Contestant, race
from bench.running import Idle
from bench.series import Series
from bench.stock import Stock

_OUT = Path(__file__).parent / "out"


@dataclass(frozen=True, slots=True)
class Race:
    """Who runs against whom, and how often: with `--rounds` as often as asked."""

    rounds: int
    contestants: Callable[[int], list[Contestant]]
    #: Rounds before that do not count.
    warmup: int = 1


_RACES = {
    "cold": Race(10, lambda _: [Cold(), Stock()]),
    "init": Race(10, lambda _: [Bare("tini", "debian-12-tini"), Bare("systemd", "debian-12")]),
    "start": Race(20, lambda _: [Standby(), Clone(), Docker()]),
    "many": Race(100, lambda _: [Many()]),
    "burst": Race(1, lambda _: [Burst(_many("BURST", 50))], warmup=0),
    "active": Race(200, lambda _: [Active(_many("ACTIVE", 30))], warmup=0),
    "rounds": Race(200, lambda rounds: [Rounds(rounds)], warmup=0),
    "fork": Race(10, lambda _: [Fork()]),
    "busy": Race(20, lambda _: [BusyFork()]),
    "check": Race(3, lambda _: [CheckInClone()], warmup=0),
    "idle": Race(3, lambda _: [Idle()]),
}


def main() -> None:
    """Run the races and write what they gave."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("race", nargs="*", help=f"one or more of: {', '.join(_RACES)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs, counted")
    chosen = parser.parse_args()
    if unknown := set(chosen.race) - set(_RACES):
        parser.error(f"no race {', '.join(sorted(unknown))}; there are: {', '.join(_RACES)}")
    # As after Ctrl-C, machines are given back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    series: list[Series] = []
    for name in chosen.race or _RACES:
        one = _RACES[name]
        rounds = chosen.rounds or one.rounds
        series += race(one.contestants(rounds), rounds, warmup=one.warmup)
    _write("-".join(["results", *chosen.race]), series)


def _many(what: str, usual: int) -> int:
    return int(os.environ.get(f"BUGBOX_BENCH_{what}", usual))


def _write(name: str, series: list[Series]) -> None:
    machine = f"{os.cpu_count()} cores, {_cpu()}, Linux {platform.release()}, no KVM used"
    load = os.getloadavg()
    verdicts, findings = judge(series), measure(series)
    table = markdown(series, verdicts, findings)
    document = {
        "machine": machine,
        "load_average": load,
        "series": [asdict(s) for s in series],
        "promises": [
            {"title": v.promise.title, "least": v.promise.least, **asdict(v.ratio), "kept": v.kept}
            for v in verdicts
        ],
        "limits": [{**asdict(f.limit), "value": f.value, "kept": f.kept} for f in findings],
    }
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (_OUT / f"{name}.md").write_text(f"{machine}\n\n{table}")
    (_OUT / f"{name}.svg").write_text(svg(series, machine))
    written = [f"{name}.json", f"{name}.md", f"{name}.svg"]
    if findings:
        (_OUT / f"{name}-limits.svg").write_text(limits_svg(findings, machine))
        written.append(f"{name}-limits.svg")
    print(f"{machine}, load average {load[0]:.1f} at the end\n\n{table}", end="")
    print(f"\nWritten to {_OUT}: {', '.join(written)}", file=sys.stderr)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
