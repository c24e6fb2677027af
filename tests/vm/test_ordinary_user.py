# SPDX-License-Identifier: Apache-2.0
"""The play story as somebody without rights: a throw-away user, who owns one folder."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.config import load
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import prepare
from tests.conftest import FACTOR

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]

#: Far from every uid that a person or a VMM of ours has.
_FIRST_UID = 1_700_000_000


class Somebody:
    """A uid that nobody has, with a home folder."""

    def __init__(self, folder: Path) -> None:
        self.uid = _FIRST_UID + os.getpid()
        self.folder = folder
        self.state = folder / "state"
        self.sockets = folder / "run"
        for place in (self.state, self.sockets):
            place.mkdir(mode=0o700)
        for place in (folder, self.state, self.sockets):
            os.chown(place, self.uid, self.uid)

    def run(self, *argv: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.sockets),
            "BUGBOX_HOME": str(self.state),
            "BUGBOX_KEEPER_IDLE": "1",
            "BUGBOX_TIMEOUT_FACTOR": str(FACTOR),
        }
        return subprocess.run(
            [sys.executable, *argv],
            env=env,
            cwd="/",
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            umask=0o077,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout * FACTOR,
            check=False,
        )

    def processes(self) -> list[str]:
        """What runs as this user."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit():
                    continue
                status = (entry / "status").read_text()
                if f"\nUid:\t{self.uid}\t" in status and "\nState:\tZ" not in status:
                    found.append((entry / "cmdline").read_text().replace("\0", " ") or entry.name)
            except OSError:
                continue
        return found


@pytest.fixture
def somebody(built: Home) -> Iterator[Somebody]:
    """A user who borrows what root built: reading is all they can do with it."""
    prepare.ensure(built, load(built), load_puzzle(shipped_puzzles() / "read-me"))
    folder = Path(tempfile.mkdtemp(prefix="bugbox-test-"))
    try:
        made = Somebody(folder)
        for name in ("images", "kernels", "layers"):
            (made.state / name).symlink_to((built.root / name).resolve())
        if made.run("-m", "bugbox", "list").returncode != 0:
            pytest.skip("this checkout cannot be read by another user")
        yield made
        if made.processes():
            made.run("-m", "bugbox", "stop", "--all", "--yes")
    finally:
        shutil.rmtree(folder)


def test_the_play_story(somebody: Somebody) -> None:
    done = somebody.run("-m", "bugbox", "play", "read-me", "--demo", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["passed"] is True
    assert told["before"]["solved"] is False
    assert told["after"]["solved"] is True
    # It ends by itself, a second after the last machine; nothing else may be running.
    deadline = time.monotonic() + 60 * FACTOR
    while left := somebody.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert list((somebody.state / "sessions").iterdir()) == []
    runtime = somebody.sockets / "bugbox"
    assert [entry for entry in runtime.rglob("*") if not entry.is_dir()] == []
    assert [entry.name for folder in runtime.iterdir() for entry in folder.iterdir()] == []
