# SPDX-License-Identifier: Apache-2.0
"""`python -m bench [RACE ...] [--rounds N]`: results under bench/out as JSON, Markdown and SVG."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from bench.docker import Docker
from bench.ours import Bare, Clone, Cold, Standby
from bench.page import markdown, svg
from bench.promises import judge
from bench.race import Contestant, race
from bench.running import Fork, Idle
from bench.series import Series
from bench.stock import Stock

_OUT = Path(__file__).parent / "out"


def _races() -> dict[str, tuple[int, list[Contestant]]]:
    """By name: how many rounds by default, and who runs against whom."""
    return {
        "cold": (10, [Cold(), Stock()]),
        "init": (10, [Bare("tini", "debian-12-tini"), Bare("systemd", "debian-12")]),
        "start": (20, [Standby(), Clone(), Docker()]),
        "fork": (10, [Fork()]),
        "idle": (3, [Idle()]),
    }


def main() -> None:
    """Run the races and write what they gave."""
    races = _races()
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("race", nargs="*", help=f"one or more of: {', '.join(races)}; default all")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs, counted")
    chosen = parser.parse_args()
    if unknown := set(chosen.race) - set(races):
        parser.error(f"no race {', '.join(sorted(unknown))}; there are: {', '.join(races)}")
    series: list[Series] = []
    for name in chosen.race or races:
        rounds, contestants = races[name]
        series += race(contestants, chosen.rounds or rounds)
    _write(series)


def _write(series: list[Series]) -> None:
    machine = f"{os.cpu_count()} cores, {_cpu()}, Linux {platform.release()}, no KVM used"
    verdicts = judge(series)
    table = markdown(series, verdicts)
    _OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine,
        "load_average": os.getloadavg(),
        "series": [asdict(s) for s in series],
        "promises": [
            {"title": v.promise.title, "least": v.promise.least, **asdict(v.ratio), "kept": v.kept}
            for v in verdicts
        ],
    }
    (_OUT / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (_OUT / "results.md").write_text(f"{machine}\n\n{table}")
    (_OUT / "results.svg").write_text(svg(series, machine))
    print(f"{machine}\n\n{table}", end="")
    print(f"\nWritten: {_OUT}/results.json, results.md, results.svg", file=sys.stderr)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
