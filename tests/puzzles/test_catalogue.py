# SPDX-License-Identifier: Apache-2.0
"""Every puzzle of the catalogue on a real machine: broken as told, solved by each way, no other."""

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bugbox.puzzle.definition import load
from tests.conftest import CATALOGUE, FACTOR, ROOT, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

REPEAT = 3 if os.environ.get("BUGBOX_TEST_ALL") else 1


def checked(bugbox: Bugbox, id: str) -> tuple[bool | None, dict[str, Any]]:
    report = bugbox.json("check", id, ok=(0, 1, 4))
    return report["solved"], {check["id"]: check for check in report["checks"]}


def as_learner(bugbox: Bugbox, id: str, script: Path, any_status: bool = False) -> None:
    """Run a solution or a non-solution as its author means it: typed by the learner."""
    ok = tuple(range(256)) if any_status else (0,)
    bugbox("shell", id, "--", "sh", "-c", script.read_text(), ok=ok)


def refused_by(script: Path) -> str:
    found = re.search(r"^# refused by: (\S+)$", script.read_text(), re.M)
    assert found, f"{script}: does not say which check refuses it"
    return found.group(1)


def reboot(bugbox: Bugbox, id: str) -> None:
    def boots() -> str:
        read = ("cat", "/proc/sys/kernel/random/boot_id")
        done = bugbox("shell", id, "--root", "--", *read, ok=tuple(range(256)))
        return done.stdout.decode().strip() if done.returncode == 0 else ""

    before = boots()
    bugbox("shell", id, "--root", "--", "systemctl", "reboot", ok=tuple(range(256)))
    deadline = time.monotonic() + 120 * FACTOR
    while boots() in ("", before):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def refused(bugbox: Bugbox, id: str, script: Path) -> None:
    as_learner(bugbox, id, script, any_status=True)
    solved, checks = checked(bugbox, id)
    assert solved is False, f"{script.name} passed"
    assert checks[refused_by(script)]["status"] == "failed", (script.name, checks)


def accepted(bugbox: Bugbox, id: str, script: Path) -> None:
    as_learner(bugbox, id, script)
    solved, checks = checked(bugbox, id)
    assert solved is True, (script.name, checks)


def in_turn(bugbox: Bugbox, name: str, ways: list[Path]) -> str:
    """Try one way after the other on one machine, each as if it were the first; its id."""
    id = bugbox.start(name)
    for number, script in enumerate(ways):
        if number:
            bugbox("reset", id, timeout=300)
        try_it = refused if script.parent.name == "wrong.d" else accepted
        try_it(bugbox, id, script)
    return id


@pytest.mark.parametrize("name", CATALOGUE)
def test_untouched_it_is_broken_as_told(bugbox: Bugbox, name: str) -> None:
    bugbox("lint", name)
    id = bugbox.start(name)
    solved, checks = checked(bugbox, id)
    assert solved is False
    for check in load(ROOT / "puzzles" / name).manifest.checks:
        seen = checks[check.id]
        assert seen["status"] == ("skipped" if check.needs else "failed"), seen
        assert seen["message"], f"{check.id} says nothing"


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_way_solves_it_or_is_refused(bugbox: Bugbox, name: str) -> None:
    folder = ROOT / "puzzles" / name
    first = [*sorted((folder / "wrong.d").iterdir()), *sorted((folder / "solve.d").iterdir())]
    ways = [*first * REPEAT, *[folder / "solve.sh"] * REPEAT]
    # On two machines: much of the time is waiting. The last way solves the puzzle.
    with ThreadPoolExecutor(2) as pool:
        machines = [pool.submit(in_turn, bugbox, name, ways[lane::2]) for lane in range(2)]
        ids = [machine.result() for machine in machines]
    id = ids[(len(ways) - 1) % 2]
    reboot(bugbox, id)
    solved, checks = checked(bugbox, id)
    assert solved is True, ("after a reboot", checks)
