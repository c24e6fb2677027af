# SPDX-License-Identifier: Apache-2.0
"""Many machines: one after another, at once, and all of them busy."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.census import Census, census, keeper_pid, more
from bench.ours import PUZZLE, Clone, Ours
from bench.race import Missing, Values
from bugbox.host.proc import Process
from bugbox.keeper import protocol
from bugbox.keeper.client import Terminal
from bugbox.session.record import load

__all__ = ["Active", "Burst", "Crowd", "Many", "Rounds"]

#: Seconds until what was ended is gone, and what is made in the background is done.
_CALM = 60.0
#: Keystrokes between two looks at memory, CPU and who is lost; seconds between two keystrokes.
_LOOK_EACH, _TYPING = 25, 0.15
#: Seconds that a keystroke's echo may take before we give up.
_ECHO = 60.0
#: What keeps a machine busy: half of them search all files, half install and remove a package.
_SEARCH = "while :; do find / -xdev; grep -rs needle /etc /usr/share; done"
_PACKAGE = """
mkdir -p /var/tmp/p/DEBIAN /var/tmp/p/opt/p && cp -r /usr/share/perl* /etc /var/tmp/p/opt/p
printf '%s\\n' 'Package: p' 'Version: 1' 'Architecture: all' 'Maintainer: p <p@p>' \
    'Description: p' >/var/tmp/p/DEBIAN/control
while :; do
    dpkg-deb --build /var/tmp/p /var/tmp/p.deb && dpkg -i /var/tmp/p.deb
    dpkg -r p && rm /var/tmp/p.deb
done
"""


class Many(Clone):
    """Clones one after another, as many as it takes to say what the slowest of a hundred takes."""

    def __init__(self) -> None:
        super().__init__()
        self.name, self.title = "many", "one clone after another"


class Crowd(Ours):
    """A state directory with a template, and machines that are never paused."""

    puzzle = PUZZLE

    def __init__(self, name: str, title: str, count: int, **settings: str) -> None:
        usual = {"BUGBOX_TEMPLATES": "on", "BUGBOX_STANDBY": "0", "BUGBOX_IDLE_PAUSE": "0"}
        super().__init__(name, title, **(usual | settings))
        self.count = count

    def set_up(self) -> None:
        super().set_up()
        self.bugbox("build", "--warm", self.puzzle)

    def require_room(self, machines: int) -> None:
        """Leave where this host has no memory for so many."""
        fits = int(self.bugbox.json("doctor", "--fit", PUZZLE)["fits"])
        if fits < machines:
            raise Missing(f"memory for {fits} machines, and it takes {machines}")

    def things(self) -> Census:
        """Name what there is, after one start at least: that leaves what stays, such as a log."""
        self.bugbox("gc")
        return census(self.bugbox.home)

    def left_over(self, before: Census) -> float:
        """Count what there is more of than before, once all is calm; say what it is."""
        deadline = time.monotonic() + _CALM
        while True:
            grown = more(before, self.things())
            if not grown or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        for kind, names in grown.items():
            print(f"{self.title}, {kind} left behind:", *names, sep="\n    ", file=sys.stderr)
        return float(sum(map(len, grown.values())))


class Rounds(Crowd):
    """Sessions started and stopped, a standby each time: nothing may be left of them."""

    def __init__(self, count: int) -> None:
        title = f"{count} sessions started and stopped"
        super().__init__("rounds", title, count, BUGBOX_STANDBY="1")
        self.done = 0

    def set_up(self) -> None:
        super().set_up()
        self.start()
        self.before = self.things()
        self.memory = self._keeper_mib()

    def once(self) -> Values:
        """Start one and stop it; after the last, count."""
        values: Values = dict(self.start())
        self.done += 1
        if self.done == self.count:
            values["left behind [things]"] = self.left_over(self.before)
            values["the keeper's memory grew by [MiB]"] = self._keeper_mib() - self.memory
        return values

    def _keeper_mib(self) -> float:
        keeper = keeper_pid(self.bugbox.home)
        status = Path(f"/proc/{keeper}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024


class Burst(Crowd):
    """So many starts at the same moment: each has its turn, none is lost, nothing is left."""

    def __init__(self, count: int) -> None:
        super().__init__("burst", f"{count} starts at once", count)

    def set_up(self) -> None:
        super().set_up()
        self.start()
        self.require_room(self.count)
        self.before = self.things()

    def once(self) -> Values:
        """Start all of them, each by a command of its own; then stop them."""
        begun = time.monotonic()
        with ThreadPoolExecutor(self.count) as crowd:
            waited = [*crowd.map(self._one, range(self.count))]
        came = [each for each in waited if each is not None]
        all_there = (time.monotonic() - begun) * 1000
        running = len(self.bugbox.json("ps"))
        self.bugbox("stop", "--all", "--yes")
        return {
            "as typed": came,
            "until all are there": all_there,
            "did not come [starts]": float(self.count - min(len(came), running)),
            "left behind [things]": self.left_over(self.before),
        }

    def _one(self, number: int) -> float | None:
        begun = time.monotonic()
        try:
            self.bugbox.json("start", PUZZLE)
        except RuntimeError as error:
            print(f"start {number}: {error}", file=sys.stderr)
            return None
        return (time.monotonic() - begun) * 1000


class Active(Crowd):
    """Busy machines, and somebody who types in one more."""

    def __init__(self, count: int) -> None:
        super().__init__("active", f"{count} busy sessions", count)
        self.typed = 0
        self.terminal: Terminal | None = None

    def set_up(self) -> None:
        super().set_up()
        self.require_room(self.count + 1)
        self.killed = _oom_kills()
        self.ids = [str(self.bugbox.json("start", PUZZLE)["id"]) for _ in range(self.count)]
        home = self.bugbox.home
        records = [load(home, id) for id in self.ids]
        self.processes = [each.process for each in records if each.process is not None]
        for number, id in enumerate(self.ids):
            self._keep_busy(id, _PACKAGE if number % 2 else _SEARCH)
        begun = time.monotonic()
        one = str(self.bugbox.json("start", PUZZLE)["id"])
        self.one_more = (time.monotonic() - begun) * 1000
        size: dict[str, Any] = {"rows": 24, "cols": 80, "term": "xterm-256color"}
        self.terminal = Terminal(home, {"id": one, **size})
        self._await(self.terminal, b"$ ")
        self.seen = _Look(self.processes)

    def __exit__(self, *error: Any) -> None:
        if self.terminal is not None:
            self.terminal.close()
        super().__exit__(*error)

    def once(self) -> Values:
        """Press one key and see it."""
        terminal = self.terminal
        assert terminal is not None
        time.sleep(_TYPING)
        self.typed += 1
        if self.typed % 40 == 0:  # never as long as a line
            terminal.stdin(b"\x15")
            time.sleep(_TYPING)
            self._read(terminal)
        begun = time.monotonic()
        terminal.stdin(b"x")
        self._await(terminal, b"x")
        values: Values = {"a keystroke's echo": (time.monotonic() - begun) * 1000}
        if self.typed % _LOOK_EACH == 0:
            values |= self._look()
        if self.typed == 1:
            values["start of one more, as typed"] = self.one_more
        return values

    def _look(self) -> Values:
        before, self.seen = self.seen, _Look(self.processes)
        states = {each["id"]: each["state"] for each in self.bugbox.json("ps")}
        lost = [id for id in self.ids if states.get(id) != "ready"]
        busy = [each.alive for each in self.processes].count(True)
        seconds = self.seen.when - before.when
        ticks = (self.seen.ticks - before.ticks) / os.sysconf("SC_CLK_TCK")
        return {
            "memory of each, PSS [MiB]": self.seen.pss_mib / len(self.processes),
            "CPU of all [% of a core]": 100 * ticks / seconds,
            "CPU of the host, busy [%]": 100 * (1 - (self.seen.idle - before.idle) / seconds),
            "lost [sessions]": float(max(len(lost), len(self.ids) - busy)),
            "OOM kills [processes]": float(_oom_kills() - self.killed),
        }

    def _keep_busy(self, id: str, script: str) -> None:
        quiet = f"({script}) </dev/null >/dev/null 2>&1 &"
        self.bugbox("shell", id, "--root", "--", "sh", "-c", quiet)

    def _read(self, terminal: Terminal) -> bytes:
        seen = b""
        for kind, payload in terminal.receive() or []:
            if kind == protocol.STDOUT:
                seen += bytes(payload)
            else:
                raise RuntimeError(f"{self.title}: {json.loads(payload)}")
        return seen

    def _await(self, terminal: Terminal, wanted: bytes) -> None:
        seen, deadline = b"", time.monotonic() + _ECHO
        while wanted not in seen:
            seen += self._read(terminal)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.title}: {wanted!r} did not come, but {seen!r}")
            time.sleep(0.001)


class _Look:
    """What machines used until now, and how long the host had nothing to do (a mean CPU, s)."""

    def __init__(self, processes: list[Process]) -> None:
        self.when = time.monotonic()
        self.ticks = sum(each.cpu_ticks() for each in processes)
        idle = Path("/proc/stat").read_text().splitlines()[0].split()[4]
        self.idle = int(idle) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
        self.pss_mib = sum(_pss_kib(each.pid) for each in processes) / 1024


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _oom_kills() -> int:
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
