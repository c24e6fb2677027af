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

__all__ = ["PUZZLE", "Bare", "Bugbox", "Clone", "Cold", "Ours", "Standby", "built"]

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

    #: Whether its starts are clones.
    clones = True

    def __init__(self, name: str, title: str, **settings: str) -> None:
        self.name, self.title, self.settings = name, title, settings
        #: Templates made before, of which it gets a copy.
        self.templates: Path | None = None

    def __enter__(self) -> Self:
        base = built()
        self.folder = Path(tempfile.mkdtemp(prefix="bugbox-bench-"))
        self.folder.chmod(0o711)
        for part in ("images", "kernels", "layers", "cache"):
            (self.folder / part).symlink_to(base.root / part)
        if self.templates is not None:
            copy = ["cp", "-a", "--reflink=auto", "--sparse=always"]
            subprocess.run([*copy, self.templates, self.folder], check=True, timeout=60)
        self.bugbox = Bugbox(self.folder, **self.settings)
        try:
            self.set_up()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def set_up(self) -> None:
        """Do what is not counted; what was started is given back when it fails."""

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

    def start(self, *args: str, what: tuple[str, ...] = (PUZZLE,)) -> dict[str, float]:
        """Start a machine and stop it again; what the command said and what its user waited."""
        begun = time.monotonic()
        answer = self.bugbox.json("start", *what, *args)
        typed = (time.monotonic() - begun) * 1000
        if answer["clone"] is not self.clones:
            raise RuntimeError(f"{self.title}: clone is {answer['clone']}, which is another race")
        self.bugbox("stop", answer["id"], "--yes")
        return {"to ready": float(answer["timings_ms"]["total"]), "as typed": typed}


class Cold(Ours):
    """A machine booted from nothing to *ready*."""

    clones = False

    def __init__(self) -> None:
        super().__init__("cold", "bugbox start --cold")

    def once(self) -> dict[str, float]:
        """Boot one."""
        return self.start("--cold")


class Clone(Ours):
    """A machine cloned from a template, as when no standby is left."""

    def __init__(self) -> None:
        super().__init__(
            "clone", "bugbox start, a clone", BUGBOX_TEMPLATES="on", BUGBOX_STANDBY="0"
        )

    def set_up(self) -> None:
        super().set_up()
        self.bugbox("build", "--warm", PUZZLE)

    def once(self) -> dict[str, float]:
        """Clone one."""
        return self.start()


class Standby(Ours):
    """A machine that stood by: the default path of a puzzle that was started lately."""

    def __init__(self) -> None:
        super().__init__(
            "standby", "bugbox start, standby", BUGBOX_TEMPLATES="on", BUGBOX_STANDBY="1"
        )

    def set_up(self) -> None:
        super().set_up()
        self.claimed = 0
        self.bugbox("build", "--warm", PUZZLE)
        self.start()

    def once(self) -> dict[str, float]:
        """Claim the one that stands by; the next is made in the same time, uncounted."""
        self._await_standby()
        return self.start()

    def _await_standby(self) -> None:
        until = time.monotonic() + 300
        log = self.bugbox.home.keeper_log
        # Each start claims one, so that each needs one line more than there were starts since.
        while log.read_text().count(" stands by") <= self.claimed:
            if time.monotonic() > until:
                raise RuntimeError(f"no machine stands by after 300 s, see {log}")
            time.sleep(0.1)
        self.claimed += 1
        time.sleep(0.5)  # it has come to rest


class Bare(Ours):
    """A machine of one base image, without a puzzle, booted from nothing to *ready*."""

    clones = False

    def __init__(self, name: str, image: str) -> None:
        super().__init__(name, f"bugbox start --image {image} --cold")
        self.image = image

    def once(self) -> dict[str, float]:
        """Boot one; the image is built the first time, which is not counted."""
        return self.start("--cold", what=("--image", self.image))
