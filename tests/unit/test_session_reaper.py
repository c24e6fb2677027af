# SPDX-License-Identifier: Apache-2.0
"""What gc takes back, and what it leaves alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_world import World, eventually, run, world

from bugbox.errors import StateError
from bugbox.host.proc import Process, spawn, start_time
from bugbox.paths import SessionPaths
from bugbox.session import reaper
from bugbox.session.provision import provision
from bugbox.session.reaper import collect, give_back
from bugbox.session.record import Ledger, Phase, claim
from bugbox.session.stopwatch import Stopwatch


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def session(made: World, phase: Phase) -> tuple[Ledger, Process]:
    """A session whose VMM is any process that writes into its log."""
    ledger = claim(made.home, "tiny")
    ledger.paths.runtime.mkdir()
    (ledger.paths.runtime / "qmp").write_text("")
    (ledger.paths.root / "fake").mkdir()
    (ledger.paths.root / "disk.qcow2").write_text("x")
    process = spawn(["sleep", "1000"], log_file=ledger.paths.vmm_log)
    ledger.process_started(process)
    ledger.write(phase=phase)
    return ledger, process


@pytest.mark.parametrize("phase", [Phase.MAKING, Phase.ENDING])
def test_half_made_and_half_ended_sessions_go(made: World, phase: Phase) -> None:
    ledger, process = session(made, phase)
    ledger.close()
    assert collect(made.home) == [ledger.record.id]
    assert not process.alive
    assert made.leftovers() == []
    assert collect(made.home) == []


def test_one_that_does_not_end_keeps_no_other(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, process = session(made, Phase.ENDING)
    stuck.close()
    other, _ = session(made, Phase.ENDING)
    other.close()
    real = reaper.end_vmm

    def end(paths: SessionPaths, process: Process | None) -> None:
        if paths.root == stuck.paths.root:
            raise StateError("process 7 does not end")
        real(paths, process)

    with monkeypatch.context() as patch:
        patch.setattr(reaper, "end_vmm", end)
        assert collect(made.home) == [other.record.id]
        assert process.alive
    assert collect(made.home) == [stuck.record.id]
    assert made.leftovers() == []


@pytest.mark.parametrize("phase", list(Phase))
def test_what_somebody_keeps_stays(made: World, phase: Phase) -> None:
    ledger, process = session(made, phase)
    assert collect(made.home) == []
    assert process.alive
    give_back(ledger)
    assert not process.alive


def test_a_session_without_a_keeper_stays(made: World) -> None:
    ledger, process = session(made, Phase.HANDED_OVER)
    ledger.close()
    assert collect(made.home) == []
    assert process.alive
    process.kill()
    process.wait_gone(5)
    assert collect(made.home) == []  # there may be work on its disk
    assert ledger.paths.root.exists()


def test_a_vmm_that_was_not_written_down_is_found(made: World) -> None:
    ledger, process = session(made, Phase.MAKING)
    ledger.write(pid=0, pid_started=0)
    ledger.close()
    collect(made.home)
    assert not process.alive


def test_another_process_with_the_same_pid_is_left_alone(made: World, tmp_path: Path) -> None:
    stranger = spawn(["sleep", "1000"], log_file=tmp_path / "log")
    ledger = claim(made.home, "tiny")
    ledger.process_started(Process(pid=stranger.pid, started=stranger.started + 1))
    ledger.close()
    assert collect(made.home) == [ledger.record.id]
    assert stranger.alive
    stranger.kill()
    stranger.wait_gone(5)


def test_a_reader_of_the_log_is_not_a_vmm(made: World, tmp_path: Path) -> None:
    ledger, _ = session(made, Phase.MAKING)
    reader = spawn(["tail", "-f", ledger.paths.vmm_log], log_file=tmp_path / "log")
    ledger.close()
    collect(made.home)
    assert reader.alive
    reader.kill()
    reader.wait_gone(5)


def test_a_folder_without_a_record_goes(made: World) -> None:
    (made.home.sessions / "tiny-aaaa").mkdir()
    (made.home.runtime / "tiny-aaaa").mkdir()
    assert collect(made.home) == ["tiny-aaaa"]
    assert made.leftovers() == []


def test_a_folder_whose_record_cannot_be_read_stays(made: World) -> None:
    ledger, process = session(made, Phase.MAKING)
    ledger.paths.record.write_text("{")
    ledger.close()
    assert collect(made.home) == []
    assert ledger.paths.root.exists()
    process.kill()
    process.wait_gone(5)


def test_sockets_without_a_session_go(made: World) -> None:
    (made.home.runtime / "tiny-aaaa").mkdir()
    assert collect(made.home) == ["sockets of tiny-aaaa"]


def test_a_full_disk_does_not_keep_us_from_emptying_it(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, process = session(made, Phase.HANDED_OVER)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    give_back(ledger)
    assert not process.alive
    assert made.leftovers() == []


def test_half_removed_is_removed(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two steps of giving back, the next gc finishes."""
    ledger, _ = session(made, Phase.HANDED_OVER)
    ledger.write(phase=Phase.ENDING)
    monkeypatch.setattr(reaper, "_remove", lambda paths: ledger.paths.disk.unlink())
    give_back(ledger)
    monkeypatch.undo()
    assert ledger.paths.root.exists()
    assert collect(made.home) == [ledger.record.id]
    assert made.leftovers() == []


def test_many_rounds_leave_nothing(made: World) -> None:
    plan = made.bare()

    async def rounds() -> None:
        for _ in range(15):
            ledger, machine = await provision(plan, made.parts, made.host, Stopwatch())
            await machine.stop(0.0)
            give_back(ledger)

    before = len(list(Path("/proc/self/fd").iterdir()))
    run(rounds)
    assert made.leftovers() == []
    eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)


def test_a_session_that_is_killed_while_it_stops(made: World) -> None:
    ledger, process = session(made, Phase.HANDED_OVER)
    pid = os.fork()
    if pid == 0:  # dies in the middle: the VMM is gone, the rest is not
        ledger.write(phase=Phase.ENDING)
        process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    ledger.close()
    process.wait_gone(5)
    assert start_time(process.pid) is None
    assert collect(made.home) == [ledger.record.id]
    assert made.leftovers() == []
