# SPDX-License-Identifier: Apache-2.0
"""Machines that run, and what many of them cost that nobody uses."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.ours import PUZZLE, Ours
from bugbox.session.record import load

__all__ = ["Idle"]

#: Seconds that machines are left alone before and while their CPU time is counted.
_SETTLE, _LOOK = 20.0, 20.0


class Idle(Ours):
    """Clones that had one command each and now do nothing, awake (idle pause is off)."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("BUGBOX_BENCH_IDLE", "5"))
        title = f"each of {self.count} idle clones"
        super().__init__(
            "idle", title, BUGBOX_TEMPLATES="on", BUGBOX_STANDBY="0", BUGBOX_IDLE_PAUSE="0"
        )

    def set_up(self) -> None:
        super().set_up()
        self.bugbox("build", "--warm", PUZZLE)
        for _ in range(self.count):
            id = self.bugbox.json("start", PUZZLE)["id"]
            self.bugbox("shell", id, "--", "true")
        records = [
            load(self.bugbox.home, each.name) for each in self.bugbox.home.sessions.iterdir()
        ]
        self.processes = [record.process for record in records if record.process is not None]
        time.sleep(_SETTLE)

    def once(self) -> dict[str, float]:
        """Look at them for a while."""
        before = self._cpu_ticks()
        time.sleep(_LOOK)
        used = (self._cpu_ticks() - before) / os.sysconf("SC_CLK_TCK")
        pss = sum(_pss_kib(process.pid) for process in self.processes) / 1024
        return {
            "CPU [% of a core]": 100 * used / _LOOK / self.count,
            "memory of its own, PSS [MiB]": pss / self.count,
        }

    def _cpu_ticks(self) -> int:
        return sum(process.cpu_ticks() for process in self.processes)


def _pss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
