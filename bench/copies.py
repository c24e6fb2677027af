# SPDX-License-Identifier: Apache-2.0
"""Copies of a running machine, and how long that one stands still for each."""

from __future__ import annotations

import re
import time
from pathlib import Path

from bench.crowd import Crowd
from bench.ours import PUZZLE, Bugbox, built
from bench.race import Values

__all__ = ["BusyFork", "CheckInClone", "Fork"]

#: Writes 24 MiB of memory again and again: other bytes each time, since an empty page is no work.
_WRITE = """
cd /dev/shm && head -c 24M /dev/urandom >one && head -c 24M /dev/urandom >two
while :; do
    for from in one two; do dd if=$from of=written bs=1M conv=notrunc; done
    echo >>rounds
done
"""
_REBOOTS = "address-already-in-use"


class Fork(Crowd):
    """A copy of a machine with nothing to do."""

    def __init__(self, name: str = "fork", title: str = "bugbox fork") -> None:
        super().__init__(name, title, 1)

    def set_up(self) -> None:
        super().set_up()
        self.original = self.bugbox.json("start", PUZZLE)["id"]

    def once(self) -> Values:
        """Fork it once."""
        begun = time.monotonic()
        answer = self.bugbox.json("fork", self.original)
        typed = (time.monotonic() - begun) * 1000
        self.bugbox("stop", answer["id"], "--yes")
        return {
            "to ready": float(answer["timings_ms"]["total"]),
            "as typed": typed,
            "the original's pause": float(answer["pause_ms"]),
        }


class BusyFork(Fork):
    """A copy of a machine that writes to its memory as fast as it can."""

    def __init__(self) -> None:
        super().__init__("busy", "bugbox fork of a busy machine")

    def set_up(self) -> None:
        super().set_up()
        quiet = f"({_WRITE}) </dev/null >/dev/null 2>&1 &"
        self._root(quiet)
        deadline = time.monotonic() + 120
        while int(self._root("wc -l </dev/shm/rounds || echo 0")) < 3:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.title}: it does not write")
            time.sleep(0.5)

    def _root(self, script: str) -> bytes:
        return self.bugbox("shell", self.original, "--root", "--", "sh", "-c", script)


class CheckInClone(Crowd):
    """A solved machine that is checked: one of its checks reboots a copy of it."""

    def __init__(self) -> None:
        super().__init__("check", f"bugbox check of {_REBOOTS}, a copy rebooted", 1)

    puzzle = _REBOOTS

    def set_up(self) -> None:
        Bugbox(built().root)("build", _REBOOTS)  # into the folder that is borrowed
        super().set_up()
        self.id = str(self.bugbox.json("start", _REBOOTS)["id"])
        script = Path(__file__).parents[1] / "puzzles" / _REBOOTS / "solve.sh"
        self.bugbox("shell", self.id, "--", "sh", "-c", script.read_text())
        self.log = self.bugbox.home.keeper_log

    def once(self) -> Values:
        """Check it; what the keeper wrote down of the copy."""
        before, begun = len(self.log.read_text()), time.monotonic()
        answer = self.bugbox.json("check", self.id)
        typed = (time.monotonic() - begun) * 1000
        if answer["solved"] is not True:
            raise RuntimeError(f"{self.title}: {answer}")
        pauses = re.findall(r"is checked in .* stood still for ([0-9]+) ms", self._since(before))
        rebooted = max(float(each["seconds"]) for each in answer["checks"])
        return {
            "as typed": typed,
            "the check that reboots": rebooted * 1000,
            "the learner's pause": [float(each) for each in pauses],
        }

    def _since(self, offset: int) -> str:
        return self.log.read_text()[offset:]
