# SPDX-License-Identifier: Apache-2.0
"""Copies of a running learner's machine: forks, checks in a clone, and back to a checkpoint."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FACTOR, Bugbox, write_puzzle

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FILES = {
    "puzzle.yaml": """\
schema: 1
name: copied
title: A puzzle to copy
summary: Make the file, for good.
checks:
  - {id: made, title: The file is there, run: checks/made.sh}
  - id: lasts
    title: It is there after a reboot
    run: checks/lasts.sh
    needs: [made]
    where: clone
    after: reboot
  - id: wild
    title: A clone may be spoilt
    run: checks/wild.sh
    needs: [made]
    where: clone
""",
    "description.md": "There should be a file.\n",
    "checks/made.sh": '#!/bin/sh\n[ -e /made ] || [ -e /run/made ] || fail "No file yet."\n',
    "checks/lasts.sh": """\
#!/bin/sh
[ ! -e /run/booted-once ] || fail "It was not rebooted."
[ -e /made ] || fail "After a reboot it is gone."
""",
    "checks/wild.sh": """\
#!/bin/sh
[ -e /run/booted-once ] || fail "It was rebooted."
rm -rf /etc/passwd /usr/bin /made
date -s 2001-01-01 >/dev/null
""",
    "break.sh": "#!/bin/sh\ntouch /run/booted-once\n",
    "solve.sh": "#!/bin/sh\nsudo touch /made\n",
}
WHO = "hostname; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'"


@pytest.fixture(scope="module")
def puzzle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("puzzles") / "copied"
    return write_puzzle(folder, FILES)


@contextmanager
def changed(path: Path, offset: int) -> Iterator[None]:
    """Another byte at one place of a file, and then the one that was there."""
    with path.open("r+b", buffering=0) as file:
        byte = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), offset)
        yield
        os.pwrite(file.fileno(), byte, offset)


def statuses(box: Bugbox, id: str) -> list[str]:
    answer = box.json("check", id, ok=(0, 1, 4), timeout=300)
    print(answer)
    return [each["status"] for each in answer["checks"]]


def until(box: Bugbox, id: str, state: str) -> None:
    deadline = time.monotonic() + 120 * FACTOR
    while True:
        (row,) = [row for row in box.json("ps") if row["id"] == id]
        if row["state"] == state:
            return
        assert time.monotonic() < deadline, row
        time.sleep(0.3)


def test_a_running_machine_is_forked_checked_in_clones_and_put_back(
    bugbox: Bugbox, puzzle: Path
) -> None:
    """One story on one machine, since each boot costs seconds."""
    id = bugbox.json("start", str(puzzle), timeout=300)["id"]
    assert statuses(bugbox, id) == ["failed", "skipped", "skipped"]

    # A file in memory is there, and will not be.
    bugbox.root(id, "touch /run/made")
    assert statuses(bugbox, id) == ["passed", "failed", "passed"]
    bugbox.root(id, "touch /made")
    bugbox.root(id, "sleep 1000 & echo $! >/run/pid")
    assert statuses(bugbox, id) == ["passed", "passed", "passed"]
    # The learner's machine never noticed.
    seen = bugbox.root(id, "ls /made /usr/bin/env /run/booted-once; cat /proc/$(cat /run/pid)/comm")
    assert seen.split() == ["/made", "/run/booted-once", "/usr/bin/env", "sleep"]
    assert len(bugbox.machines()) == 1
    assert [path.name for path in bugbox.home.sessions.iterdir()] == [id]

    # A fork is somebody else, with the same processes and files.
    answer = bugbox.json("fork", id, timeout=300)
    print(answer)
    two = answer["id"]
    assert answer["of"] == id
    told = {each: bugbox.root(each, WHO).split() for each in (id, two)}
    assert told[id][0] == id
    assert told[two][0] == two
    assert told[id][1] != told[two][1]
    assert told[id][2] != told[two][2]
    assert bugbox.root(two, "cat /proc/$(cat /run/pid)/comm /run/booted-once").strip() == "sleep"
    bugbox.root(two, "rm /made; sync")
    bugbox.root(id, "ls /made")
    bugbox("stop", id)
    # It needs nothing of the one that it was made of: not even to boot again.
    bugbox.root(two, "touch /two; sync")
    bugbox.root(two, "poweroff", ok=tuple(range(256)))
    until(bugbox, two, "off")
    bugbox("resume", two, timeout=300)
    assert bugbox.root(two, "ls /two").strip() == "/two"


def test_undo_brings_memory_and_disk_back(bugbox: Bugbox, puzzle: Path) -> None:
    id = bugbox.json("start", str(puzzle), timeout=300)["id"]
    bugbox.root(id, "echo before >/run/memory; echo before >/disk; sync")
    kept = bugbox.json("checkpoint", id, "clean", timeout=300)
    print(kept)
    randoms = []
    for _ in range(2):
        bugbox.root(id, "echo after >/run/memory; echo after >/disk; sync; rm -rf /usr/bin")
        answer = bugbox.json("undo", id, "--yes", timeout=300)
        print(answer)
        assert (answer["id"], answer["state"], answer["label"]) == (id, "ready", "clean")
        assert bugbox.root(id, "cat /run/memory /disk; ls /usr/bin/env").split() == [
            "before",
            "before",
            "/usr/bin/env",
        ]
        randoms.append(bugbox.root(id, WHO).split())
        before = time.time()
        guest = float(bugbox.root(id, "date +%s.%N"))
        assert before - 2 < guest < time.time() + 2
    assert randoms[0][:2] == randoms[1][:2]
    assert randoms[0][2] != randoms[1][2]
    # A changed byte, in memory or on the disk: refused, and the machine is as it was.
    bugbox.root(id, "echo later >/run/memory")
    folder = bugbox.home.session(id).root
    for path in (folder / "checkpoints/clean/state", folder / "disk.qcow2"):
        with changed(path, path.stat().st_size // 2):
            refused = bugbox("undo", id, "--yes", ok=(1,)).stderr.decode()
        assert f"{path} does not hold what it held" in refused
        assert bugbox.root(id, "cat /run/memory") == "later\n"
    # Kept again under the same label, it is the later one; then there is none.
    bugbox("checkpoint", id, "clean", timeout=300)
    bugbox.root(id, "rm /run/memory")
    bugbox("undo", id, "clean", "--yes", timeout=300)
    assert bugbox.root(id, "cat /run/memory") == "later\n"
    listing = bugbox.json("checkpoint", id, "--list")
    assert [each["label"] for each in listing["checkpoints"]] == ["clean"]
    bugbox("checkpoint", id, "--remove", "clean")
    assert bugbox.json("checkpoint", id, "--list")["checkpoints"] == []
    assert "no checkpoint" in bugbox("undo", id, "--yes", ok=(2,)).stderr.decode()
