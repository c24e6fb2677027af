# SPDX-License-Identifier: Apache-2.0
"""The record: whole or old, one owner, understood by the next process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bugbox.errors import NotFound, StateError
from bugbox.host.proc import Process, start_time
from bugbox.paths import Home
from bugbox.session import record
from bugbox.session.record import Phase, claim, load, load_all, take_over


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_ids_can_be_typed(home: Home) -> None:
    ids = {claim(home, "read-me").record.id for _ in range(30)}
    assert len(ids) == 30
    assert all(re.fullmatch(r"read-me-[a-hjkmnp-z2-9]{4}", id) for id in ids)


def test_a_taken_id_is_not_taken_twice(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = iter("aaaa" + "aaaa" + "bbbb")
    monkeypatch.setattr(record.secrets, "choice", lambda _: next(letters))
    assert [claim(home, "x").record.id for _ in range(2)] == ["x-aaaa", "x-bbbb"]


def test_a_long_name_leaves_room_for_sockets(home: Home) -> None:
    ledger = claim(home, "n" * 200)
    assert len(ledger.record.id) < 50
    assert ledger.record.puzzle == "n" * 200


def test_what_is_written_is_read_back(home: Home) -> None:
    ledger = claim(home, "x", title="T", folder="/f", user="ann")
    ledger.hold("sockets")
    ledger.hold("disk")
    ledger.hold("disk")
    ledger.write(phase=Phase.HANDED_OVER, hints=(1, 2), timings_ms={"total": 3}, degraded=("u",))
    found = load(home, ledger.record.id)
    assert found == ledger.record
    assert found.holds == ("sockets", "disk")


def test_a_failed_write_leaves_the_old_record(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = claim(home, "x", title="old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            ledger.write(title="new")
    assert load(home, ledger.record.id).title == "old"
    assert ledger.record.title == "old"


def test_unknown_keys_of_a_later_version_are_skipped(home: Home) -> None:
    ledger = claim(home, "x")
    raw = json.loads(ledger.paths.record.read_text())
    ledger.paths.record.write_text(json.dumps({**raw, "later": 1}))
    assert load(home, ledger.record.id).puzzle == "x"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": "x", "puzzle": "x", "phase": "no"}'])
def test_a_broken_record_is_an_error_and_hides_no_other(home: Home, text: str) -> None:
    good = claim(home, "good")
    broken = claim(home, "broken")
    broken.paths.record.write_text(text)
    with pytest.raises(StateError, match="cannot be read"):
        load(home, broken.record.id)
    assert [each.id for each in load_all(home)] == [good.record.id]


def test_no_such_session(home: Home) -> None:
    home.prepare()
    with pytest.raises(NotFound):
        load(home, "x-aaaa")
    assert record.ids(home) == []


def test_a_session_has_one_owner(home: Home) -> None:
    ledger = claim(home, "x")
    assert take_over(home, ledger.record.id) is None
    ledger.close()
    second = take_over(home, ledger.record.id)
    assert second is not None
    assert second.record == ledger.record
    assert take_over(home, ledger.record.id) is None


def test_the_lock_is_not_inherited_and_dies_with_its_owner(home: Home) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bugbox.paths import Home\n"
        "from bugbox.session.record import claim; from bugbox.host.proc import spawn\n"
        "home = Home(Path(sys.argv[1])); ledger = claim(home, 'x')\n"
        "child = spawn(['sleep', '60'], log_file=home.root / 'log')\n"
        "print(ledger.record.id, child.pid, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(home.root)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    id, child = owner.stdout.readline().split()
    try:
        assert take_over(home, id) is None
        owner.kill()
        owner.wait()
        ledger = take_over(home, id)
        assert ledger is not None
        ledger.close()
    finally:
        owner.stdout.close()
        os.kill(int(child), 9)


def test_a_pid_of_another_boot_is_nobody(home: Home) -> None:
    ledger = claim(home, "x")
    me = Process(pid=os.getpid(), started=start_time(os.getpid()) or 0)
    ledger.process_started(me)
    assert ledger.record.process == me
    ledger.write(host_boot="another")
    assert ledger.record.process is None
