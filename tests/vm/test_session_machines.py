# SPDX-License-Identifier: Apache-2.0
"""A session's whole life on a real machine, through a real keeper, as its clients see it."""

import json
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bugbox.config import load
from bugbox.errors import BootFailed, GuestError, StateError
from bugbox.host.proc import Process, start_time
from bugbox.keeper import protocol
from bugbox.keeper.client import KeeperGone, Terminal, relay, request, stream
from bugbox.paths import Home
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import prepare
from tests.conftest import FACTOR, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FILES = {
    "puzzle.yaml": """\
schema: 1
name: tiny
title: A tiny puzzle
summary: Make the file.
checks:
  - {id: made, title: The file is there, run: checks/made.sh}
  - {id: yours, title: It is yours, run: checks/yours.sh, user: learner}
hints:
  - {title: First, file: hints/1.md}
""",
    "description.md": "There should be a file.\n",
    "checks/made.sh": '#!/bin/sh\n[ -e /made ] || fail "No file yet."\n',
    "checks/yours.sh": '#!/bin/sh\n[ -O /made ] || fail "Not yours."\n',
    "hints/1.md": "Look.\n",
    "solve.sh": "#!/bin/sh\nsudo touch /made\nsudo chown learner /made\n",
    "boot.sh": "#!/bin/sh\necho boot >> /run/tiny\nsleep 1000 &\n",
    "break.sh": "#!/bin/sh\necho break >> /run/tiny\nsleep 2000 &\n",
    "session.sh": "#!/bin/sh\nid -un >> /etc/tiny-session\necho session >> /run/tiny\n",
    "ready.sh": "#!/bin/sh\ngrep -q break /run/tiny\n",
}


def write_tiny(folder: Path, more: str = "") -> Path:
    """Write the puzzle, with `more` in its manifest."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + more if name == "puzzle.yaml" else text)
        if name.endswith(".sh"):
            (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def tiny(tmp_path: Path, bugbox: Bugbox) -> Iterator[Path]:
    folder = write_tiny(tmp_path / "tiny")
    prepare.ensure(bugbox.home, load(bugbox.home), load_puzzle(folder))
    yield folder


def start(home: Home, folder: Path) -> str:
    return str(request(home, "start", {"puzzle": str(folder)})["id"])


def sh(home: Home, id: str, script: str, **who: Any) -> tuple[int, str]:
    """Run a line in the guest; its status and what it printed."""
    source, sink = os.pipe()
    try:
        with stream(home, "exec", {"id": id, "argv": ["sh", "-c", script], **who}) as link:
            status = relay(link, stdin=None, stdout=sink)
        return status, os.read(source, 65536).decode() if _readable(source) else ""
    finally:
        os.close(source)
        os.close(sink)


def _readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def until(link: Terminal, wanted: bytes, seconds: float = 90) -> bytes:
    """Read a terminal until it has shown `wanted`; notices appear in angle brackets."""
    seen = b""
    deadline = time.monotonic() + seconds * FACTOR
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        frames = link.receive()
        assert frames is not None, seen
        for kind, payload in frames:
            if kind == protocol.STDOUT:
                seen += payload
            else:
                told = json.loads(payload)
                seen += f"<{told.get('text') or told}>".encode()
        time.sleep(0.01)
    return seen


def sit_down(home: Home, id: str) -> Terminal:
    link = Terminal(home, {"id": id, "rows": 24, "cols": 80, "term": "xterm-256color"})
    until(link, b"$ ")
    return link


def test_a_life(bugbox: Bugbox, tiny: Path) -> None:
    a_life(bugbox, tiny)


def a_life(bugbox: Bugbox, tiny: Path) -> None:
    """Start, look, lose the keeper, ask from inside, reboot, solve, power off, resume, reset."""
    home = bugbox.home
    answer = request(home, "start", {"puzzle": str(tiny)})
    id = answer["id"]
    assert answer["state"] == "ready"
    assert answer["degraded"] == []
    report = request(home, "check")
    assert [check["message"] for check in report["checks"]] == ["No file yet.", "Not yours."]
    looked = sh(home, id, "cat /run/tiny; pgrep -c sleep", root=True)
    assert looked == (0, "boot\nbreak\nsession\n2\n")

    with sit_down(home, id) as link:
        link.stdin(b"KEPT=yes; loginctl --no-legend | wc -l; echo seen-$((1+1))\n")
        until(link, b"seen-2")
        os.kill(request(home, "ping")["pid"], signal.SIGKILL)
        until(link, b"<the keeper was restarted>")
        link.stdin(b"echo kept-$KEPT\n")
        until(link, b"kept-yes")
        assert [row["state"] for row in request(home, "ps")] == ["ready"]

        link.stdin(b"bugbox check; echo status-$?; bugbox story\n")
        inside = until(link, b"There should be a file.")
        assert b"No file yet." in inside
        assert b"status-1" in inside

        link.stdin(b"sudo reboot\n")
        until(link, "<rebooting…>".encode())
        until(link, b"<the machine is back>")
        link.stdin(b"cat /run/tiny; echo again-$((2+2))\n")
        assert b"break" not in until(link, b"again-4")

        assert request(home, "check")["solved"] is False
        assert sh(home, id, (tiny / "solve.sh").read_text())[0] == 0
        assert request(home, "check")["solved"] is True
        assert json.loads(home.progress.read_text())["puzzle"] == "tiny"

        link.stdin(b"sudo poweroff\n")
        until(link, b"<the machine is off;")

    assert [row["state"] for row in request(home, "ps")] == ["off"]
    with pytest.raises(StateError, match="is off"):
        request(home, "check")
    assert request(home, "resume")["state"] == "ready"
    assert request(home, "check")["solved"] is True
    assert sh(home, id, "cat /run/tiny /etc/tiny-session", root=True) == (0, "boot\nroot\n")
    assert request(home, "reset")["id"] == id
    assert request(home, "check")["solved"] is False
    again = sh(home, id, "cat /run/tiny /etc/tiny-session", root=True)
    assert again == (0, "boot\nbreak\nsession\nroot\n")
    assert request(home, "stop", {"ids": [id]}) == {"stopped": [id]}


def test_a_killed_vmm(bugbox: Bugbox, tiny: Path) -> None:
    home = bugbox.home
    id = start(home, tiny)
    sh(home, id, "echo work > ~/work; sync")
    with sit_down(home, id) as link:
        (pid,) = bugbox.machines()
        Process(pid=pid, started=start_time(pid) or 0).kill()
        assert b"MachineLost" in until(link, b"MachineLost", 30)
    assert request(home, "ps")[0]["state"] == "failed"
    assert request(home, "check")["solved"] is False
    assert request(home, "resume")["state"] == "ready"
    assert sh(home, id, "cat ~/work") == (0, "work\n")


def test_a_machine_without_its_keeper_goes_on(bugbox: Bugbox, tiny: Path) -> None:
    """Between two keepers the guest reboots; the next one sees the boot to its end."""
    home = bugbox.home
    id = start(home, tiny)
    sh(home, id, "systemd-run --on-active=3 --timer-property=AccuracySec=1ms reboot", root=True)
    os.kill(request(home, "ping")["pid"], signal.SIGKILL)
    time.sleep(4 * FACTOR)
    deadline = time.monotonic() + 90 * FACTOR
    ran = ""
    # The next keeper may come while the guest still goes down, and find it as it was.
    while ran != "boot\n":
        assert time.monotonic() < deadline, ran
        time.sleep(0.5)
        if request(home, "ps")[0]["state"] == "ready":
            with suppress(GuestError, StateError):
                ran = sh(home, id, "cat /run/tiny", root=True)[1]


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 3.0])
def test_a_keeper_killed_in_a_start(bugbox: Bugbox, tiny: Path, seconds: float) -> None:
    home = bugbox.home
    pid = request(home, "ping")["pid"]
    threading.Timer(seconds, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(KeeperGone):
        start(home, tiny)
    left = [Process(pid=pid, started=start_time(pid) or 0) for pid in bugbox.machines()]
    assert seconds < 1 or left
    bugbox("gc")
    assert not any(process.alive for process in left)
    assert list(home.sessions.iterdir()) == []
    assert [path.name for path in home.runtime.iterdir()] == ["keeper"]


def test_a_boot_that_cannot_end_well_leaves_nothing(bugbox: Bugbox, tiny: Path) -> None:
    home = bugbox.home
    (tiny / "ready.sh").write_text("#!/bin/sh\necho still fine\nexit 127\n")
    with pytest.raises(BootFailed, match="not broken as told") as caught:
        start(home, tiny)
    assert "still fine" in (caught.value.detail or "")
    assert "console" in (caught.value.detail or "")
    assert request(home, "ps") == []
    assert list(home.sessions.iterdir()) == []
