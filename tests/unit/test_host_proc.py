# SPDX-License-Identifier: Apache-2.0
"""The runner of external programs."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bugbox.errors import CommandFailed, MissingTool
from bugbox.host.proc import Process, find, run, spawn, start_time


def test_output_and_input() -> None:
    done = run(["sh", "-c", "cat; echo err >&2"], input=b"in\0put", timeout=10)
    assert (done.stdout, done.stderr, done.status) == (b"in\0put", "err\n", 0)


def test_failure_says_the_last_line_of_stderr() -> None:
    with pytest.raises(CommandFailed, match="ended with status 3: why it failed") as caught:
        run(["sh", "-c", "echo first >&2; echo why it failed >&2; exit 3"], timeout=10)
    assert caught.value.status == 3
    assert caught.value.detail == "first\nwhy it failed\n"


def test_other_statuses_can_be_fine() -> None:
    assert run(["sh", "-c", "exit 3"], ok=(0, 3), timeout=10).status == 3


def test_a_timeout_kills_grandchildren(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid_file}; wait"
    with pytest.raises(CommandFailed, match="did not end in time"):
        run(["sh", "-c", script], timeout=1)
    grandchild = int(pid_file.read_text())
    deadline = time.monotonic() + 5
    while start_time(grandchild) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert start_time(grandchild) is None


def test_a_timeout_does_not_wait_for_who_left_the_group(tmp_path: Path) -> None:
    """A daemon that a program left behind holds its pipes, and is out of our reach."""
    pid_file = tmp_path / "pid"
    script = f"setsid sleep 300 & echo $! > {pid_file}; echo said >&2; wait"
    try:
        with pytest.raises(CommandFailed, match="did not end in time: said"):
            run(["sh", "-c", script], timeout=2)
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_a_spawned_program_that_ends_at_once_is_reaped(tmp_path: Path) -> None:
    process = spawn(["true"], log_file=tmp_path / "log")
    assert process.started > 0
    assert process.wait_gone(20)
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bugbox.host.proc._PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="mmdebstrap is not installed") as caught:
        find("mmdebstrap")
    assert caught.value.hint == "apt-get install mmdebstrap"


def test_the_environment_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("LC_ALL", "de_DE")
    out = run(["env"], env={"ONE": "1"}, timeout=10).stdout.decode()
    assert "SECRET_TOKEN" not in out and "ONE=1" in out and "LC_ALL=C.UTF-8" in out


def test_a_spawned_program_outlives_its_file_and_is_known_by_start_time(tmp_path: Path) -> None:
    process = spawn(["sleep", "300"], log_file=tmp_path / "log")
    try:
        assert process.alive
        assert os.getsid(process.pid) == process.pid
        assert not Process(pid=process.pid, started=process.started + 1).alive
        Process(pid=process.pid, started=process.started + 1).kill()
        assert process.alive, "a stranger with the same pid was killed"
    finally:
        process.kill(signal.SIGKILL)
    assert process.wait_gone(5)
    process.kill()


def test_start_time_survives_a_name_with_parentheses(tmp_path: Path) -> None:
    program = tmp_path / "a) (b"
    program.symlink_to(find("sleep"))
    process = spawn([str(program), "300"], log_file=tmp_path / "log")
    try:
        assert process.started > 0
    finally:
        process.kill()
        assert process.wait_gone(5)


def test_gone_means_that_every_thread_has_let_go(tmp_path: Path) -> None:
    """The first thread may be a zombie while others still run."""
    script = (
        "import ctypes, os, threading, time\n"
        "def work():\n"
        "    time.sleep(0.7)\n"
        "    open('done', 'w').close()\n"
        "    os._exit(0)\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).syscall(60, 0)\n"  # exit of this thread alone
    )
    process = spawn([sys.executable, "-c", script], log_file=tmp_path / "log", cwd=tmp_path)
    while Path(f"/proc/{process.pid}/stat").read_text().split(") ")[1][0] != "Z":
        time.sleep(0.005)
    assert not process.wait_gone(0.05)
    assert process.wait_gone(20)
    assert (tmp_path / "done").exists()
    assert not Path(f"/proc/{process.pid}").exists(), "reaped"


def test_what_a_child_uses_counts(tmp_path: Path) -> None:
    """A VMM may be the child of the process that looks after it."""
    busy = "import sys\nkept = bytearray(b'x' * (32 << 20))\nwhile True: pass"
    process = spawn(
        ["sh", "-c", 'trap "" TERM; "$@" & wait', "sh", sys.executable, "-c", busy],
        log_file=tmp_path / "log",
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        deadline = time.monotonic() + 60
        while process.cpu_ticks() < 20 or process.private_mib() < 32:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        process.kill()
        process.wait_gone(10)
    assert (process.cpu_ticks(), process.private_mib()) == (0, 0)
