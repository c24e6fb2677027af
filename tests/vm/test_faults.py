# SPDX-License-Identifier: Apache-2.0
"""What learners do to machines, and what happens to ours: each fault on a real machine."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FACTOR, Bugbox

pytestmark = pytest.mark.vm


@pytest.fixture
def machine(bugbox: Bugbox) -> str:
    """A session of read-me."""
    return bugbox.start("read-me")


def answers_within(bugbox: Bugbox, id: str, seconds: float) -> float:
    """Seconds until a command is answered."""
    begun = time.monotonic()
    while True:
        done = bugbox("shell", id, "--root", "--rescue", "--", "true", ok=(0, 1), timeout=30)
        took = time.monotonic() - begun
        if done.returncode == 0:
            return took
        assert took < seconds * FACTOR, done.stderr.decode()


def verdict(bugbox: Bugbox, id: str) -> dict[str, object]:
    """A check always ends in a verdict; whatever it is, the JSON has the contract's shape."""
    report = bugbox.json("check", id, ok=(0, 1, 4))
    assert set(report) >= {"solved", "checks"}
    assert all({"id", "title", "status", "message", "seconds"} <= set(c) for c in report["checks"])
    return dict(report)


WRECKS: dict[str, str] = {
    "remove-everything": "rm -rf --no-preserve-root / 2>/dev/null; true",
    "forbid-everything": "chmod -R 000 / 2>/dev/null; true",
    "fill-the-disk": "dd if=/dev/zero of=/fill bs=1M 2>/dev/null; echo x >/more; true",
    "drop-the-network": "nft add table inet w; nft add chain inet w i "
    "'{ type filter hook input priority 0; policy drop; }'; nft add chain inet w o "
    "'{ type filter hook output priority 0; policy drop; }'; ip link set lo down",
    "no-shell": "rm -f /bin/sh /bin/bash /usr/bin/dash; rm -rf /etc",
}


@pytest.mark.parametrize("name", WRECKS)
def test_the_lifeline_answers_in_a_wreck_and_a_check_has_a_verdict(
    bugbox: Bugbox, machine: str, name: str
) -> None:
    bugbox("shell", machine, "--root", "--", "sh", "-c", WRECKS[name], ok=tuple(range(256)))
    answers_within(bugbox, machine, 5)
    assert verdict(bugbox, machine)["solved"] is not True
    # And reset gives a machine that is as good as new.
    bugbox("reset", machine, timeout=300)
    assert verdict(bugbox, machine)["solved"] is False
    assert bugbox.root(machine, "echo fine") == "fine\n"


def test_a_fork_bomb_leaves_room_for_the_lifeline(bugbox: Bugbox, machine: str) -> None:
    bomb = "bomb() { bomb | bomb & }; bomb"
    bugbox("shell", machine, "--", "bash", "-c", bomb, ok=tuple(range(256)), timeout=60)
    answers_within(bugbox, machine, 20)
    assert verdict(bugbox, machine)["solved"] is not True


def test_kill_everything_brings_the_lifeline_back_within_two_seconds(
    bugbox: Bugbox, machine: str
) -> None:
    begun = time.monotonic()
    bugbox("shell", machine, "--root", "--", "sh", "-c", "kill -9 -1", ok=tuple(range(256)))
    took = answers_within(bugbox, machine, 10)
    print(f"answered again after {time.monotonic() - begun:.2f} s ({took:.2f} s of asking)")
    assert verdict(bugbox, machine)["solved"] is False


def test_streams_apart_and_the_commands_own_status(bugbox: Bugbox, machine: str) -> None:
    done = bugbox("shell", machine, "--", "sh", "-c", "echo out; echo err >&2; exit 7", ok=(7,))
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert bugbox("shell", machine, "--", "sh", "-c", "kill -TERM $$", ok=(143,)).stdout == b""
    every_byte = bytes(range(256)) * 300
    assert bugbox("shell", machine, "--", "cat", input=every_byte).stdout == every_byte


def test_a_guests_reboot_keeps_the_session_and_poweroff_turns_it_off(
    bugbox: Bugbox, machine: str
) -> None:
    bugbox.root(machine, "echo kept >/root/note; sync")
    before = bugbox.root(machine, "cat /proc/sys/kernel/random/boot_id /etc/machine-id").split()
    bugbox("shell", machine, "--root", "--", "systemctl", "reboot", ok=tuple(range(256)))
    after = before
    deadline = time.monotonic() + 90 * FACTOR
    while after[0] == before[0]:
        assert time.monotonic() < deadline, bugbox.json("ps")
        time.sleep(0.5)
        done = bugbox(
            *("shell", machine, "--root", "--", "cat"),
            *("/proc/sys/kernel/random/boot_id", "/etc/machine-id", "/root/note"),
            ok=(0, 1),
        )
        after = done.stdout.decode().split() if done.returncode == 0 else before
    assert after[1:] == [before[1], "kept"]
    bugbox("shell", machine, "--root", "--", "systemctl", "poweroff", ok=tuple(range(256)))
    deadline = time.monotonic() + 60 * FACTOR
    while bugbox.json("ps")[0]["state"] != "off":
        assert time.monotonic() < deadline, bugbox.json("ps")
        time.sleep(0.5)
    bugbox("resume", machine, timeout=300)
    assert bugbox.root(machine, "cat /root/note") == "kept\n"


def test_a_killed_vmm_is_told_and_leaves_nothing(bugbox: Bugbox, machine: str) -> None:
    shell = bugbox.popen("shell", machine, "--", "sleep", "300")
    time.sleep(2)
    for pid in bugbox.machines():
        os.kill(pid, signal.SIGKILL)
    out, err = shell.communicate(timeout=30 * FACTOR)
    assert shell.returncode == 1, (out, err)
    assert err.strip()
    assert bugbox.json("ps")[0]["state"] == "failed"
    report = verdict(bugbox, machine)
    assert report["solved"] is not True


def test_a_killed_keeper_loses_nothing(bugbox: Bugbox, machine: str) -> None:
    bugbox.root(machine, "sleep 1000 & echo $! >/run/sleeper")
    keeper = int(keeper_pid(bugbox))
    os.kill(keeper, signal.SIGKILL)
    assert [s["state"] for s in bugbox.json("ps")] == ["ready"]
    assert keeper_pid(bugbox) != keeper
    assert bugbox.root(machine, "uptime >/dev/null; cat /run/sleeper").strip().isdigit()


def keeper_pid(bugbox: Bugbox) -> int:
    from bugbox.keeper import client

    return int(client.request(bugbox.home, "ping", {})["pid"])


def test_two_terminals_and_a_check_at_once(bugbox: Bugbox, machine: str) -> None:
    first = bugbox.popen("shell", machine, "--", "sh", "-c", "sleep 3; echo first")
    second = bugbox.popen("shell", machine, "--root", "--", "sh", "-c", "sleep 3; echo second")
    assert verdict(bugbox, machine)["solved"] is False
    assert first.communicate(timeout=60 * FACTOR)[0] == "first\n"
    assert second.communicate(timeout=60 * FACTOR)[0] == "second\n"


def test_ctrl_c_while_booting_takes_everything_back(bugbox: Bugbox) -> None:
    starting = bugbox.popen("start", "read-me")
    deadline = time.monotonic() + 60 * FACTOR
    while not bugbox.machines():
        assert time.monotonic() < deadline and starting.poll() is None
        time.sleep(0.05)
    starting.send_signal(signal.SIGINT)
    _, err = starting.communicate(timeout=60 * FACTOR)
    assert starting.returncode == 130, err
    assert bugbox.json("ps") == []
    assert bugbox.machines() == []


@pytest.mark.parametrize("after", [0.2, 1.0, 3.0])
def test_kill_9_of_everything_while_starting_leaves_nothing_after_gc(
    bugbox: Bugbox, after: float
) -> None:
    starting = bugbox.popen("start", "read-me")
    keeper = keeper_pid(bugbox)
    time.sleep(after)
    os.kill(keeper, signal.SIGKILL)
    starting.kill()
    starting.communicate(timeout=30)
    bugbox("gc")
    assert bugbox.machines() == []
    assert list(bugbox.home.sessions.iterdir()) == []


def refuse(bugbox: Bugbox, folder: Path, *words: str, status: int = 1) -> str:
    done = bugbox("start", str(folder), ok=(status,), timeout=300)
    message = done.stderr.decode()
    for word in words:
        assert word in message, message
    assert bugbox.json("ps") == []
    return message


def small(bugbox: Bugbox, folder: Path, change: Callable[[Path], None]) -> Path:
    """A small puzzle of our own with one change."""
    bugbox("new", "small", cwd=folder)
    puzzle = folder / "small"
    change(puzzle)
    return puzzle


def script(name: str, text: str) -> Callable[[Path], None]:
    def write(puzzle: Path) -> None:
        (puzzle / name).write_text(f"#!/bin/sh\n{text}\n")
        (puzzle / name).chmod(0o755)

    return write


def test_a_failing_build_shows_its_output(bugbox: Bugbox, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, script("build.sh", "echo the reason; exit 3"))
    refuse(bugbox, puzzle, "build.sh", "3", "the reason")


def test_a_failing_boot_script_is_told_at_once(bugbox: Bugbox, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, script("boot.sh", "echo no route to nowhere; exit 5"))
    refuse(bugbox, puzzle, "boot.sh", "5", "no route to nowhere")


def test_a_ready_script_that_never_agrees_is_told(bugbox: Bugbox, tmp_path: Path) -> None:
    def change(puzzle: Path) -> None:
        script("ready.sh", "echo still whole; exit 1")(puzzle)
        with (puzzle / "puzzle.yaml").open("a") as manifest:
            manifest.write("boot: {timeout: 20s}\n")

    puzzle = small(bugbox, tmp_path, change)
    refuse(bugbox, puzzle, "ready.sh", "still whole")


def test_no_room_in_the_state_directory(bugbox: Bugbox, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    bugbox.home.prepare()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(bugbox.home.sessions)], check=True
    )
    try:
        done = bugbox("start", "read-me", ok=(3,), timeout=300)
        assert "space" in done.stderr.decode() or "room" in done.stderr.decode()
        assert list(bugbox.home.sessions.iterdir()) == []
    finally:
        subprocess.run(["umount", str(bugbox.home.sessions)], check=True)


def test_qemu_missing_names_the_package(bugbox: Bugbox) -> None:
    without = Bugbox(bugbox.home.root, BUGBOX_QEMU="/nonexistent/qemu-system-x86_64")
    done = without("start", "read-me", ok=(3,), timeout=120)
    assert "qemu" in done.stderr.decode().lower()


def test_a_full_host_disk_stalls_the_machine_and_loses_nothing(
    bugbox: Bugbox, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    bugbox.home.prepare()
    sessions = str(bugbox.home.sessions)
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, "size=160m", "tmpfs", sessions], check=True)
    try:
        id = bugbox.start("read-me")
        writing = bugbox.popen(
            "shell",
            id,
            "--root",
            "--",
            "sh",
            "-c",
            "head -c 250000000 /dev/urandom >/big; sync; md5sum /big; wc -c /big",
        )
        deadline = time.monotonic() + 120 * FACTOR
        while bugbox.json("ps")[0]["state"] != "stalled":
            assert time.monotonic() < deadline and writing.poll() is None, bugbox.json("ps")
            time.sleep(0.5)
        stalled = time.monotonic()
        time.sleep(8.0)  # which its clock does not see
        subprocess.run([*mount, "remount,size=800m", "tmpfs", sessions], check=True)
        # A clock that nobody set is behind by all of that; one that was set, by what the way to a
        # busy guest took.
        late = (time.monotonic() - stalled) / 2
        bugbox("resume", id)
        before = time.time()
        guest = float(bugbox.root(id, "date +%s.%N"))
        assert before - late < guest < time.time() + late, (before, guest, time.time(), late)
        out, err = writing.communicate(timeout=180 * FACTOR)
        assert "250000000 /big" in out, (out, err)
        again = bugbox.root(id, "echo 3 >/proc/sys/vm/drop_caches; md5sum /big", timeout=120)
        assert again.split()[0] == out.split()[0]
        bugbox("stop", id, "--yes")
    finally:
        bugbox("stop", "--all", "--yes", ok=(0, 1, 2))
        subprocess.run(["umount", "-l", sessions], check=True)


@pytest.mark.parametrize("name", ["remove-everything", "forbid-everything"])
def test_a_wreck_whose_lifeline_is_killed_too(bugbox: Bugbox, machine: str, name: str) -> None:
    any_status = tuple(range(256))
    bugbox("shell", machine, "--root", "--", "sh", "-c", WRECKS[name], ok=any_status)
    answers_within(bugbox, machine, 5)
    # The guest's own shell may be gone; the rescue shell's builtin does it as well.
    bugbox("shell", machine, "--rescue", "--", "kill", "-9", "-1", ok=any_status)
    answers_within(bugbox, machine, 30)
    assert verdict(bugbox, machine)["solved"] is not True
