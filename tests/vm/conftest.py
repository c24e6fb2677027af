# SPDX-License-Identifier: Apache-2.0
"""A container engine of the tests' own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FACTOR


@pytest.fixture(scope="session")
def engine() -> Iterator[str]:
    """An engine's DOCKER_HOST."""
    with running_engine() as host:
        yield host


@contextmanager
def running_engine() -> Iterator[str]:
    """Start dockerd beside any other, on a socket and in a folder of its own; its DOCKER_HOST."""
    search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [tool for tool in ("dockerd", "docker") if shutil.which(tool, path=search) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (apt-get install docker.io)")
    if os.geteuid() != 0:
        pytest.skip("needs root: dockerd does")
    folder = Path(tempfile.mkdtemp(prefix="bugbox-docker-", dir="/var/tmp"))
    host = f"unix://{folder}/sock"
    # fmt: off
    argv = [
        "dockerd", "--iptables=false", "--bridge=none", "--host", host,
        "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"),
        "--pidfile", str(folder / "pid"),
    ]
    # fmt: on
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(argv, stdout=log, stderr=log, env={**os.environ, "PATH": search})
    try:
        if not _answers(host, daemon):
            last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            pytest.skip(f"dockerd does not start here: {last}")
        yield host
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60 * FACTOR)
        shutil.rmtree(folder)


def _answers(host: str, daemon: subprocess.Popen[bytes]) -> bool:
    env = {**os.environ, "DOCKER_HOST": host}
    deadline = time.monotonic() + 60 * FACTOR
    while time.monotonic() < deadline and daemon.poll() is None:
        if subprocess.run(["docker", "info"], env=env, capture_output=True).returncode == 0:
            return True
        time.sleep(0.2)
    return False
