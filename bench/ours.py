# SPDX-License-Identifier: Apache-2.0
"""bugbox itself, driven as people drive it: by its command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bugbox.keeper import start as keeper_start
from bugbox.paths import Home

__all__ = ["PUZZLE", "Bugbox", "Cold", "Ours", "built"]

PUZZLE = "read-me"


class Bugbox:
    """The command against one state directory, software emulation forced."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = Home(home)
        self.env = {
            **os.environ,
            "BUGBOX_HOME": str(home),
            "BUGBOX_ACCEL": "tcg",
            "NO_COLOR": "1",
            **settings,
        }

    def __call__(self, *args: str, timeout: float = 600) -> bytes:
        done = subprocess.run(
            [sys.executable, "-m", "bugbox", *args],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"bugbox {' '.join(args)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def json(self, *args: str) -> Any:
        """Return the one document that a command prints."""
        return json.loads(self(*args, "--json"))


def built() -> Home:
    """Return the usual state directory, with kernel, base image and the puzzle's layer built."""
    home = Home()
    home.prepare()
    Bugbox(home.root)("build", PUZZLE)
    return home


class Ours:
    """A state directory for one race, which borrows what is built."""

    def __init__(self, name: str, title: str, **settings: str) -> None:
        self.name, self.title, self.settings = name, title, settings

    def __enter__(self) -> Self:
        base = built()
        self.folder = Path(tempfile.mkdtemp(prefix="bugbox-bench-"))
        self.folder.chmod(0o711)
        for part in ("images", "kernels", "layers", "cache"):
            (self.folder / part).symlink_to(base.root / part)
        self.bugbox = Bugbox(self.folder, **self.settings)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bugbox("stop", "--all", "--yes")
        keeper_start.retire(self.bugbox.home)
        self.bugbox("gc")
        shutil.rmtree(self.bugbox.home.runtime, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *args: str) -> dict[str, float]:
        """Start a machine and stop it again; what the command said and what its user waited."""
        begun = time.monotonic()
        answer = self.bugbox.json("start", PUZZLE, *args)
        typed = (time.monotonic() - begun) * 1000
        self.bugbox("stop", answer["id"], "--yes")
        return {"to ready": float(answer["timings_ms"]["total"]), "as typed": typed}


class Cold(Ours):
    """A machine booted from nothing to *ready*."""

    def __init__(self) -> None:
        super().__init__("cold", "bugbox start --cold")

    def once(self) -> dict[str, float]:
        """Boot one."""
        return self.start("--cold")
