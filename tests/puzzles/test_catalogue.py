# SPDX-License-Identifier: Apache-2.0
"""Every puzzle of the catalogue on a real machine: broken as told, solved by each way, no other."""

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import CATALOGUE, FACTOR, ROOT, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

REPEAT = 3 if os.environ.get("BUGBOX_TEST_ALL") else 1


def checked(bugbox: Bugbox, id: str) -> tuple[bool | None, dict[str, Any]]:
    report = bugbox.json("check", id, ok=(0, 1, 4))
    return report["solved"], {check["id"]: check for check in report["checks"]}


def as_learner(bugbox: Bugbox, id: str, script: Path) -> None:
    """Run a solution or a non-solution as its author means it: typed by the learner."""
    bugbox("shell", id, "--", "sh", "-c", script.read_text(), ok=tuple(range(256)))


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


@pytest.mark.parametrize("name", CATALOGUE)
def test_puzzle(bugbox: Bugbox, name: str) -> None:
    folder = ROOT / "puzzles" / name
    bugbox("lint", name)
    id = bugbox.start(name)

    solved, checks = checked(bugbox, id)
    assert solved is False
    assert all(check["status"] in ("failed", "skipped") for check in checks.values()), checks
    for check in checks.values():
        assert check["message"], f"{check['id']} says nothing"

    for script in sorted((folder / "wrong.d").iterdir()):
        as_learner(bugbox, id, script)
        solved, checks = checked(bugbox, id)
        assert solved is False, f"{script.name} passed"
        assert checks[refused_by(script)]["status"] == "failed", (script.name, checks)
        bugbox("reset", id, timeout=300)

    ways = [*sorted((folder / "solve.d").iterdir()), folder / "solve.sh"] * REPEAT
    for number, script in enumerate(ways, 1):
        as_learner(bugbox, id, script)
        solved, checks = checked(bugbox, id)
        assert solved is True, (script.name, checks)
        if number < len(ways):
            bugbox("reset", id, timeout=300)

    reboot(bugbox, id)
    solved, checks = checked(bugbox, id)
    assert solved is True, ("after a reboot", checks)
