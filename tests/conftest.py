# SPDX-License-Identifier: Apache-2.0
"""What tests share: a state directory that borrows images, and the command as people type it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bugbox.config import load
from bugbox.keeper import start as keeper_start
from bugbox.paths import Home
from bugbox.session import prepare

ROOT = Path(__file__).parents[1]
#: Multiplies every time limit of a test that waits for a machine.
FACTOR = float(os.environ.get("BUGBOX_TIMEOUT_FACTOR", "1"))
#: A template is made in the background after a first start; a test of something else needs none.
os.environ.setdefault("BUGBOX_TEMPLATES", "off")
#: Puzzles whose whole test `make test` runs; that of the others runs with BUGBOX_TEST_ALL=1.
CATALOGUE = ("read-me", "deleted-but-open", "address-already-in-use")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test on real machines gets a second try; the end lists it as RERUN, to be looked into."""
    for item in items:
        if item.get_closest_marker("vm"):
            item.add_marker(pytest.mark.flaky(reruns=1))


class Bugbox:
    """`bugbox` as typed, against one state directory."""

    def __init__(self, home: Path, **extra: str) -> None:
        self.home = Home(home)
        self.env = {**os.environ, "BUGBOX_HOME": str(home), "NO_COLOR": "1", **extra}

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "bugbox", *args],
            env=self.env,
            text=True,
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            **options,
        )

    def __call__(
        self,
        *args: str,
        ok: tuple[int, ...] = (0,),
        timeout: float = 180,
        input: bytes | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "bugbox", *args],
            env=self.env,
            input=b"" if input is None else input,
            capture_output=True,
            timeout=timeout * FACTOR,
            cwd=cwd,
            check=False,
        )
        assert done.returncode in ok, (
            f"bugbox {' '.join(args)}: {done.returncode}\n{done.stdout.decode(errors='replace')}\n"
            f"{done.stderr.decode(errors='replace')}"
        )
        return done

    def json(self, *args: str, ok: tuple[int, ...] = (0,), timeout: float = 180) -> Any:
        return json.loads(self(*args, "--json", ok=ok, timeout=timeout).stdout)

    def start(self, *args: str) -> str:
        """Start a session, its id."""
        return str(self.json("start", *args, timeout=300)["id"])

    def root(self, id: str, script: str, ok: tuple[int, ...] = (0,), timeout: float = 60) -> str:
        """Run a line as root in the guest; what it printed."""
        done = self("shell", id, "--root", "--", "sh", "-c", script, ok=ok, timeout=timeout)
        return done.stdout.decode()

    def machines(self) -> list[int]:
        """Pids of this home's VMMs."""
        found = []
        for record in self.home.sessions.glob("*/record.json"):
            pid = int(json.loads(record.read_text()).get("pid", 0))
            if pid and Path(f"/proc/{pid}").exists():
                found.append(pid)
        return found

    def end(self) -> None:
        """Stop what runs and the keeper; then nothing may be left."""
        pids = self.machines()
        self("stop", "--all", "--yes", ok=(0, 1, 2))
        keeper_start.retire(self.home)
        self("gc")
        left = [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
        assert not left, f"still running: {left}"
        assert not list(self.home.sessions.iterdir()), "session folders left"
        sockets = [p.name for p in self.home.runtime.iterdir() if p.name != "keeper"]
        assert not sockets, f"left in the runtime folder: {sockets}"


def write_puzzle(folder: Path, files: Mapping[str, str]) -> Path:
    """Write a puzzle's files, scripts with their run bit; return its folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.endswith(".sh"):
            path.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def built() -> Home:
    """The state directory that keeps images from one test run to the next, with all parts built."""
    home = Home()
    home.prepare()
    settings = load(home)
    prepare.ensure(home, settings, "debian-12")
    return home


@contextmanager
def borrowing(built: Home) -> Iterator[Path]:
    """A fresh state directory that borrows images, kernels, layers and probe results."""
    folder = Path(tempfile.mkdtemp(prefix="bugbox-test-"))
    folder.chmod(0o711)
    for name in ("images", "kernels", "layers", "cache"):
        (folder / name).symlink_to(built.root / name)
    yield folder
    shutil.rmtree(Home(folder).runtime, ignore_errors=True)
    shutil.rmtree(folder)


@pytest.fixture
def home_folder(built: Home) -> Iterator[Path]:
    """A state directory of the test's own."""
    with borrowing(built) as folder:
        yield folder


@pytest.fixture
def bugbox(home_folder: Path) -> Iterator[Bugbox]:
    """The command against a fresh state directory; afterwards nothing may be left."""
    command = Bugbox(home_folder)
    yield command
    command.end()
