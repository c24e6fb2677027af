# SPDX-License-Identifier: Apache-2.0
"""Real machines that nobody uses stand still, and go on with the right time."""

import json
import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from bugbox.config import load
from bugbox.host.proc import Process, start_time
from bugbox.keeper import protocol
from bugbox.keeper.client import Terminal, request
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.session import hostsleep
from bugbox.session.manager import Manager
from tests.conftest import FACTOR, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

IDLE = 2.0


def clock_error(bugbox: Bugbox, id: str) -> float:
    """Seconds that the guest's clock is away from the host's, as far as one command can tell."""
    before = time.time()
    guest = float(bugbox.root(id, "date +%s.%N"))
    after = time.time()
    return max(before - guest, guest - after, 0.0)


def state(bugbox: Bugbox) -> str:
    (row,) = request(bugbox.home, "ps")
    return str(row["state"])


def pause(bugbox: Bugbox, *, save: bool = False) -> None:
    wanted = "saved" if save else "paused"
    assert request(bugbox.home, "pause", {"save": save})["state"] == wanted == state(bugbox)


def wait_paused(bugbox: Bugbox) -> None:
    deadline = time.monotonic() + 60 * FACTOR
    while state(bugbox) != "paused":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def vmm(bugbox: Bugbox) -> Process:
    (pid,) = bugbox.machines()
    started = start_time(pid)
    assert started is not None
    return Process(pid=pid, started=started)


def read_until(link: Terminal, wanted: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 60 * FACTOR
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        for kind, payload in link.receive() or []:
            text = payload if kind == protocol.STDOUT else json.loads(payload).get("text", "")
            seen += text if isinstance(text, bytes) else f"<{text}>".encode()
        time.sleep(0.01)
    return seen


def test_left_alone_it_stands_still_and_a_key_lets_it_run_on(
    bugbox: Bugbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything on one machine: booting one for each use would take minutes."""
    monkeypatch.setenv("BUGBOX_IDLE_PAUSE", str(IDLE))
    bugbox.env["BUGBOX_IDLE_PAUSE"] = str(IDLE)
    id = bugbox.start("--image", "debian-12")
    # The guest's clock is wrong on purpose, and stays so.
    bugbox.root(id, "date -s @$(($(date +%s) + 3600))")
    size = {"rows": 24, "cols": 80, "term": "xterm-256color"}
    with Terminal(bugbox.home, {"id": id, **size}) as link:
        read_until(link, b"$ ")
        link.stdin(b"stty -echo; KEPT=yes; echo set-$((1+1))\n")
        read_until(link, b"set-2")
        read_until(link, b"any key lets it run on>")
        wait_paused(bugbox)
        # It takes no CPU at all, however long it stands still.
        before = vmm(bugbox).cpu_ticks()
        time.sleep(3.0)
        assert vmm(bugbox).cpu_ticks() - before <= 2
        assert state(bugbox) == "paused"
        # One key, and the shell that was open all the time goes on.
        link.stdin(b"echo $KEPT-$((2+2))\n")
        read_until(link, b"yes-4")
        assert state(bugbox) == "ready"
    assert abs(clock_error(bugbox, id) - 3600) < 2
    bugbox.root(id, "date -s @$(($(date +%s) - 3600))")

    # Each other use wakes it too; by then it has been paused by hand and by itself.
    for use in (["shell", id, "--", "true"], ["cp", __file__, f"{id}:copied"], ["resume", id]):
        pause(bugbox)
        bugbox(*use)
        assert state(bugbox) == "ready"
    # Busy, it is left alone, although nobody types.
    bugbox.root(id, "(timeout 5 sh -c 'while :; do :; done' >/dev/null 2>&1 &)")
    begun = time.monotonic()
    while time.monotonic() < begun + 2 * IDLE:
        assert state(bugbox) == "ready"
        time.sleep(0.5)
    # The VMM itself stands still for a while, as all of a host that sleeps does.
    bugbox("shell", id, "--", "true")
    machine = vmm(bugbox)
    machine.kill(signal.SIGSTOP)
    try:
        time.sleep(5.0)
    finally:
        machine.kill(signal.SIGCONT)
    assert clock_error(bugbox, id) < 2
    assert machine.alive
    # The keeper dies while it stands still; the next one lets it run on, with the right time.
    wait_paused(bugbox)
    os.kill(request(bugbox.home, "ping")["pid"], 9)
    time.sleep(3.0)
    assert state(bugbox) == "paused"
    assert clock_error(bugbox, id) < 2
    assert bugbox.root(id, "cat ~learner/copied") == Path(__file__).read_text()


def test_a_clock_that_the_host_let_stand_still_is_right_soon_after(
    bugbox: Bugbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real machine's CPUs and clock are stopped behind the session's back; only that it was the
    host who slept is made up."""
    slept = 0
    monkeypatch.setattr(hostsleep, "_asleep_ns", lambda: slept)

    async def main() -> None:
        nonlocal slept
        async with Manager(bugbox.home, load(bugbox.home), lasting=True) as manager:
            id = (await manager.answer("start", {"image": "debian-12"}))["id"]
            session = (await manager.find(id)).session
            machine = session.machine
            assert isinstance(machine, QemuMachine)
            await machine._ask("stop")
            await anyio.sleep(5.0)
            await machine._ask("cont")
            assert await behind(machine.lifeline) > 4.5
            slept += 5 * 10**9
            with anyio.fail_after(30 * FACTOR):
                while await behind(machine.lifeline) > 2:  # noqa: ASYNC110 (a guest tells nobody)
                    await anyio.sleep(0.2)
            await manager.answer("stop", {"all": True})

    async def behind(lifeline: Lifeline) -> float:
        return time.time() - await lifeline.clock() / 1e9

    anyio.run(main)


def test_saved_it_outlives_its_keeper_and_goes_on_where_it_was(bugbox: Bugbox) -> None:
    id = bugbox.start("--image", "debian-12")
    memory = bugbox.home.session(id).memory
    size = {"rows": 24, "cols": 80, "term": "xterm-256color"}
    with Terminal(bugbox.home, {"id": id, **size}) as link:
        read_until(link, b"$ ")
        link.stdin(b"stty -echo; KEPT=yes; echo disk >~/work; echo set-$((1+1))\n")
        read_until(link, b"set-2")
        gone = vmm(bugbox)
        bugbox("pause", id, "--save")
        read_until(link, b"any key loads it>")
        assert (state(bugbox), gone.alive) == ("saved", False)
        assert memory.stat().st_mode & 0o777 == 0o600
        link.stdin(b"echo $KEPT-$((2+2))\n")
        read_until(link, b"yes-4")
        assert (state(bugbox), memory.exists()) == ("ready", False)
    # As after a reboot of the host: another keeper, and nothing of the machine runs.
    pause(bugbox, save=True)
    os.kill(request(bugbox.home, "ping")["pid"], 9)
    time.sleep(3.0)
    assert (state(bugbox), bugbox.machines()) == ("saved", [])
    assert clock_error(bugbox, id) < 2

    # Killed in the middle of it, the keeper leaves a machine that goes on, or one that is saved.
    saving = bugbox.popen("pause", id, "--save")
    deadline = time.monotonic() + 60 * FACTOR
    while not (list(memory.parent.glob("memory.state*")) or saving.poll() is not None):
        assert time.monotonic() < deadline
    os.kill(request(bugbox.home, "ping")["pid"], 9)
    saving.communicate()
    assert state(bugbox) in ("paused", "saved")
    assert not list(memory.parent.glob("memory.state.new"))
    assert bugbox.root(id, "cat ~learner/work") == "disk\n"
    assert clock_error(bugbox, id) < 2

    # Changed by a byte it is refused; its disk is still there.
    bugbox.root(id, "echo memory >/run/work; sync")
    pause(bugbox, save=True)
    with memory.open("r+b") as file:
        file.seek(memory.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    refused = bugbox("shell", id, "--", "true", ok=(1,)).stderr.decode()
    assert "is not what was saved" in refused and "--cold" in refused
    assert (state(bugbox), bugbox.machines()) == ("saved", [])
    bugbox("resume", id, "--cold")
    assert bugbox.root(id, "cat ~learner/work; ls /run/work 2>&1 || true").split()[0] == "disk"
    assert not memory.exists()
