# SPDX-License-Identifier: Apache-2.0
"""`docker run` of the same root filesystem, by an engine of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.ours import built
from bench.race import Missing
from bugbox.config import load
from bugbox.session import prepare

__all__ = ["Docker"]

_IMAGE = "bugbox-bench"


class Docker:
    """A Docker engine with its own folder and socket, and our base image in it."""

    name = "docker"
    title = "docker run … true"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Missing("an engine of its own needs root")
        for program in ("dockerd", "docker"):
            if shutil.which(program) is None:
                raise Missing(f"{program} is not installed: apt-get install docker.io")
        self._stack = contextlib.ExitStack()
        with self._stack:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
            self._stack.enter_context(_engine(self.folder))
            self._import()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def once(self) -> dict[str, float]:
        """Run `true` in a new container."""
        begun = time.monotonic()
        self._docker("run", "--rm", "--network=none", _IMAGE, "true")
        return {"as typed": (time.monotonic() - begun) * 1000}

    def _docker(self, *args: str, stdin: int = subprocess.DEVNULL) -> None:
        argv = ["docker", "--host", f"unix://{self.folder}/socket", *args]
        done = subprocess.run(argv, stdin=stdin, capture_output=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace')}")

    def _import(self) -> None:
        home = built()
        base = prepare.ensure(home, load(home), "debian-12").image
        mounted = self.folder / "base"
        mounted.mkdir()
        # Ours, never a guest's: the base is as our own builder left it.
        subprocess.run(
            ["mount", "-o", "loop,ro,noload", str(base.rootfs), str(mounted)],
            check=True,
            timeout=60,
        )
        try:
            with subprocess.Popen(
                ["tar", "-C", str(mounted), "-c", "."], stdout=subprocess.PIPE
            ) as tar:
                assert tar.stdout is not None
                self._docker("import", "-", _IMAGE, stdin=tar.stdout.fileno())
        finally:
            subprocess.run(["umount", str(mounted)], check=True, timeout=60)


@contextlib.contextmanager
def _engine(folder: Path) -> Iterator[None]:
    log = (folder / "log").open("wb")
    argv = [
        *("dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none"),
        *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--pidfile", str(folder / "pid"), "--host", f"unix://{folder}/socket"),
    ]
    with log, subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True) as engine:
        try:
            _await_engine(folder, engine)
            yield
        finally:
            engine.send_signal(signal.SIGTERM)
            try:
                engine.wait(30)
            except subprocess.TimeoutExpired:
                engine.kill()
            subprocess.run(["umount", "-R", str(folder / "exec")], capture_output=True, check=False)


def _await_engine(folder: Path, engine: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        done = subprocess.run(
            ["docker", "--host", f"unix://{folder}/socket", "info"],
            capture_output=True,
            check=False,
        )
        if done.returncode == 0:
            return
        if engine.poll() is not None:
            break
        time.sleep(0.2)
    text = (folder / "log").read_text(errors="replace")
    raise Missing(f"its engine does not start here: {text[-500:]}")
