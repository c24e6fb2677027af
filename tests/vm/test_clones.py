# SPDX-License-Identifier: Apache-2.0
"""Clones of real machines: each somebody of its own, or nobody's."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from bugbox.config import load
from bugbox.errors import MachineLost
from bugbox.keeper.client import request
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.paths import Home
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import cloning, prepare, template
from bugbox.session.manager import Manager
from tests.conftest import FACTOR, Bugbox, write_puzzle

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

CLONES = 20 if os.environ.get("BUGBOX_TEST_ALL") == "1" else 3

FILES = {
    "puzzle.yaml": """\
schema: 1
name: cloned
title: A puzzle to clone
summary: Make the file.
checks:
  - {id: made, title: The file is there, run: checks/made.sh}
""",
    "description.md": "There should be a file.\n",
    "checks/made.sh": '#!/bin/sh\n[ -e /made ] || fail "No file yet."\n',
    "solve.sh": "#!/bin/sh\nsudo touch /made\n",
    "break.sh": "#!/bin/sh\necho break >> /run/cloned\nsleep 2000 &\n",
    "session.sh": "#!/bin/sh\necho session >> /run/cloned\n",
    "ready.sh": "#!/bin/sh\ngrep -q session /run/cloned\n",
}
#: What a clone is, a line each; the time last, so that it is the freshest.
WHO = """
hostname
cat /etc/hostname /etc/machine-id
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
cat /proc/sys/kernel/random/uuid
cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null || echo none
journalctl -b --no-pager -q | wc -l
getent hosts "$(hostname)" | wc -l
cat /run/cloned | tr '\\n' ' '; echo
date +%s%N
"""


@pytest.fixture(scope="module")
def puzzle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("puzzles") / "cloned"
    return write_puzzle(folder, FILES)


@pytest.fixture(scope="module")
def template_of(built: Home, puzzle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose only content of its own is one template: made once for all tests."""
    folder = tmp_path_factory.mktemp("made")
    folder.chmod(0o711)
    for name in ("images", "kernels", "layers", "cache"):
        (folder / name).symlink_to(built.root / name)
    home = Home(folder)
    home.prepare()
    settings, wanted = load(home), load_puzzle(puzzle)
    parts = prepare.ensure(home, settings, wanted)
    assert anyio.run(cloning.warm, home, settings, wanted, parts)
    assert list(home.sessions.iterdir()) == []
    assert [p.name for p in home.tmp.iterdir() if not p.name.startswith(".")] == []
    return folder / "templates"


@pytest.fixture
def box(bugbox: Bugbox, template_of: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bugbox]:
    """bugbox with a template of the puzzle, as a copy: a test may spoil it."""
    monkeypatch.setenv("BUGBOX_TEMPLATES", "on")
    bugbox.env["BUGBOX_TEMPLATES"] = "on"
    copy = ["cp", "-a", "--reflink=auto", "--sparse=always", template_of, bugbox.home.templates]
    subprocess.run(copy, check=True, timeout=60)
    yield bugbox


def who(box: Bugbox, id: str) -> dict[str, Any]:
    before = time.time_ns()
    lines = box.root(id, WHO).splitlines()
    after = time.time_ns()
    names = [
        "hostname",
        "file",
        "machine_id",
        "random",
        "uuid",
        "key",
        "journal",
        "resolves",
        "ran",
    ]
    told = dict(zip(names, lines[:-1], strict=True))
    return told | {"early_ns": before - int(lines[-1]), "late_ns": int(lines[-1]) - after}


def test_clones_share_nothing_that_tells_them_apart(box: Bugbox, puzzle: Path) -> None:
    answers = [box.json("start", str(puzzle), timeout=300) for _ in range(CLONES)]
    assert all(answer["clone"] for answer in answers), answers
    ids = [answer["id"] for answer in answers]
    for id in ids:
        box.root(id, "systemctl start ssh.service", timeout=120)
    told = {id: who(box, id) for id in ids}
    for id, one in told.items():
        assert one["hostname"] == one["file"] == id
        assert int(one["journal"]) > 20, "the journal goes along with the machine-id"
        assert one["resolves"] == "1"
        assert one["ran"].split() == ["break", "session"]
        # Between the two moments that the host saw around it, within 50 ms.
        assert one["early_ns"] < 50e6, one
        assert one["late_ns"] < 50e6, one
    for name in ("machine_id", "random", "uuid", "key"):
        assert len({one[name] for one in told.values()}) == len(ids), name
    assert box("check", ids[0], ok=(1,)).returncode == 1
    box("shell", ids[0], "--", "sh", "-c", FILES["solve.sh"].split("\n", 1)[1])
    assert box("check", ids[0]).returncode == 0
    assert box("check", ids[1], ok=(1,)).returncode == 1
    # A reboot in a clone: the same machine goes on, from its own disk.
    box("shell", ids[0], "--root", "--", "systemctl", "reboot", ok=(0, 1, 129, 143, 255))
    deadline = time.monotonic() + 120 * FACTOR
    anything = tuple(range(256))  # it may be on its way down, or up
    while "gone" not in box.root(ids[0], "[ -e /run/cloned ] || echo gone", ok=anything):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    again = box.root(ids[0], "hostname; cat /etc/machine-id; ls /made").split()
    assert again == [ids[0], told[ids[0]]["machine_id"], "/made"]
    # Reset: another clone under the same id.
    answer = box.json("reset", ids[0], "--yes", timeout=300)
    assert (answer["id"], answer["clone"]) == (ids[0], True)
    assert box("check", ids[0], ok=(1,)).returncode == 1
    assert box.root(ids[0], "cat /etc/machine-id").strip() != told[ids[0]]["machine_id"]


def test_a_saved_clone_is_loaded_without_its_template(box: Bugbox, puzzle: Path) -> None:
    """Its memory lay over the template's; in the file all of it is its own."""
    answer = box.json("start", str(puzzle), timeout=300)
    assert answer["clone"] is True
    id = answer["id"]
    before = box.root(id, "echo mine >/run/mine; cat /etc/machine-id /run/cloned")
    box("pause", id, "--save")
    (folder,) = box.home.templates.iterdir()
    (folder / "ram").unlink()
    (folder / "state").unlink()
    assert box.root(id, "cat /etc/machine-id /run/cloned") == before
    assert box.root(id, "cat /run/mine") == "mine\n"
    assert box("check", id, ok=(1,)).returncode == 1


def test_a_template_changed_by_a_byte_is_refused(box: Bugbox, puzzle: Path) -> None:
    (folder,) = box.home.templates.iterdir()
    with (folder / "ram").open("r+b") as file:
        file.seek(100 << 20)
        byte = file.read(1)[0]
        file.seek(100 << 20)
        file.write(bytes([byte ^ 1]))
    done = box("gc", "--verify", "--json")
    assert folder.name in done.stderr.decode()
    assert not folder.exists()


def test_an_agent_killed_between_entropy_and_name_lets_nobody_in(
    box: Bugbox, puzzle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clone is ended, its template suspect, and what is handed over was booted."""
    told = Lifeline.identity
    killed: list[str] = []

    async def identity(self: Lifeline, name: str = "", machine_id: str = "") -> None:
        if machine_id:  # a clone's; a cold boot only gets a name
            killed.append(name)
            agents = "kill -9 $(grep -l '^bugbox-lifeline' /proc/[0-9]*/comm | cut -d/ -f3)"
            with pytest.raises(MachineLost):
                await self.run(["sh", "-c", agents], timeout=20 * FACTOR)
        await told(self, name, machine_id)

    monkeypatch.setattr(Lifeline, "identity", identity)

    async def start() -> dict[str, Any]:
        async with Manager(box.home, load(box.home)) as manager:
            return dict(await manager.answer("start", {"puzzle": str(puzzle)}))

    answer = anyio.run(start)
    assert killed == [answer["id"]]
    assert answer["clone"] is False
    assert len(box.machines()) == 1
    assert [each for each in template.stored(box.home) if not template.suspected(each.folder)] == []
    assert box.root(answer["id"], "cat /run/cloned").split() == ["break", "session"]


@pytest.mark.parametrize(
    "stage",
    [
        "saving",
        pytest.param(
            "booting",
            marks=pytest.mark.skipif(CLONES == 3, reason="long: BUGBOX_TEST_ALL=1"),
        ),
    ],
)
def test_kill_9_while_a_template_is_made_leaves_nothing(
    bugbox: Bugbox, puzzle: Path, stage: str
) -> None:
    maker = bugbox.popen("build", "--warm", str(puzzle))
    try:
        home, deadline = bugbox.home, time.monotonic() + 240 * FACTOR
        pattern = "sessions/*/argv.json" if stage == "booting" else "tmp/template-*/template/state"
        while not list(home.root.glob(pattern)):
            assert maker.poll() is None, maker.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        maker.send_signal(signal.SIGKILL)
        maker.communicate()
    pids = [int(json.loads(p.read_text())["pid"]) for p in home.sessions.glob("*/record.json")]
    bugbox("gc")
    assert [pid for pid in pids if pid and Path(f"/proc/{pid}/exe").exists()] == []
    assert list(home.sessions.iterdir()) == []
    assert list(home.templates.iterdir()) == []
    assert [p.name for p in home.tmp.iterdir() if not p.name.startswith(".")] == []


def test_a_first_start_leaves_a_template_and_a_standby_behind(
    bugbox: Bugbox, puzzle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUGBOX_TEMPLATES", "on")
    bugbox.env["BUGBOX_TEMPLATES"] = "on"
    first = request(bugbox.home, "start", {"puzzle": str(puzzle)})
    assert first["clone"] is False
    claimed = []
    for n in range(2):
        deadline = time.monotonic() + 240 * FACTOR
        while bugbox.home.keeper_log.read_text().count(" stands by") == n:
            assert time.monotonic() < deadline, bugbox.home.keeper_log.read_text()
            time.sleep(0.2)
        time.sleep(1.0)  # it stands still, and its clock with it
        claimed.append(request(bugbox.home, "start", {"puzzle": str(puzzle)}))
    assert len(template.stored(bugbox.home)) == 1
    told = []
    for answer in claimed:
        assert answer["clone"] is True
        assert {"resume", "identity", "login"} <= answer["timings_ms"].keys()
        uptime = float(bugbox.root(answer["id"], "cat /proc/uptime").split()[0])
        assert float(bugbox.root(answer["id"], "cat /proc/uptime").split()[0]) > uptime
        told.append(who(bugbox, answer["id"]))
        assert told[-1]["hostname"] == answer["id"]
        assert told[-1]["ran"].split() == ["break", "session"]
        assert told[-1]["early_ns"] < 50e6 and told[-1]["late_ns"] < 50e6, told
    for name in ("machine_id", "random", "uuid"):
        assert told[0][name] != told[1][name], name
