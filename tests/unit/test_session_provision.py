# SPDX-License-Identifier: Apache-2.0
"""The main path, with each of its steps refusing, dying, or being cancelled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from session_world import World, eventually, run, world

from bugbox.config import Settings
from bugbox.errors import BootFailed, BugboxError, OutOfResources
from bugbox.machine import fake
from bugbox.machine.driver import Abilities
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.session import provision as path
from bugbox.session import record
from bugbox.session.description import from_json, to_json
from bugbox.session.provision import provision
from bugbox.session.reaper import collect, give_back
from bugbox.session.record import Phase, load
from bugbox.session.stopwatch import Stopwatch
from bugbox.session.vmm_user import make_socket_folder, own_uid
from bugbox.session.wires import JAIL
from bugbox.storage.disks import qcow2

#: Everything that the main path takes or waits for, in no special order.
STEPS: tuple[tuple[Any, str], ...] = (
    (path, "_spec"),
    (path, "make_socket_folder"),
    (path, "_make_disk"),
    (path, "wait_for_init"),
    (path, "run_script"),
    (path, "wait_for_ready_script"),
    (path, "log_in"),
    (record, "_replace"),
    (fake, "spawn"),
    (fake.FakeMachine, "connect"),
    (fake.FakeMachine, "wait_lifeline"),
    (fake.FakeMachine, "reached"),
    (Lifeline, "terminal"),
)


#: How many of them a start takes.
_STEPS_TAKEN = 24


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def count_steps(before: Callable[[int], None], patch: Callable[[Any, str, Any], None]) -> None:
    """Call `before` with a running number ahead of every step."""
    number = 0

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            before(number)
            return function(*args, **kwargs)

        return call

    for place, name in STEPS:
        patch(place, name, counted(getattr(place, name)))


def start(made: World, **changes: Any) -> str:
    """Provision, let go, and return the id; the machine runs on."""

    async def work() -> str:
        ledger, machine = await provision(made.plan(**changes), made.parts, made.host, Stopwatch())
        assert machine.state is State.READY
        await machine.release()
        ledger.close()
        return ledger.record.id

    return run(work)


def test_a_session_is_handed_over(made: World) -> None:
    id = start(made)
    found = load(made.home, id)
    assert found.phase is Phase.HANDED_OVER
    assert found.holds == ("sockets", "disk", "vmm")
    assert found.state == "ready"
    assert found.process is not None and found.process.alive
    assert next(iter(found.timings_ms)) == "total"
    assert sum(list(found.timings_ms.values())[1:]) <= found.timings_ms["total"] + 10
    assert made.log(id) == ["boot", "break", "session", "ready"]


def test_every_step_that_refuses_gives_all_back(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, the second, … acquisition refuses; afterwards the host is as before."""
    refused: list[int] = []
    for limit in range(1, 100):

        def refuse(number: int, limit: int = limit) -> None:
            if number == limit:
                refused.append(number)
                raise OutOfResources("refused for a test")

        with monkeypatch.context() as patch:
            count_steps(refuse, patch.setattr)
            try:
                start(made)
            except BugboxError as error:
                assert "refused for a test" in str(error)
            else:
                break
        assert made.leftovers() == [], f"step {limit}"
    assert len(refused) == _STEPS_TAKEN


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from pathlib import Path
from session_world import World
from test_session_provision import count_steps, start
def die(number):
    if number == {limit}:
        os.kill(os.getpid(), signal.SIGKILL)
count_steps(die, setattr)
start(World(Path({folder!r})))
"""


@pytest.mark.parametrize("limit", range(1, _STEPS_TAKEN + 1))
def test_killed_at_every_step_gc_gives_all_back(made: World, limit: int) -> None:
    code = KILLED.format(
        path=[str(Path(__file__).parent), *sys.path], folder=str(made.folder), limit=limit
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    collect(made.home)
    assert made.leftovers() == []


def test_cancelled_at_any_time_gives_all_back(made: World) -> None:
    made.write("ready.sh", "#!/bin/sh\nsleep 0.05; exit 1\n")

    async def work(seconds: float) -> None:
        with anyio.move_on_after(seconds) as scope:
            await provision(made.plan(), made.parts, made.host, Stopwatch())
        assert scope.cancelled_caught

    for seconds in (0.001, 0.03, 0.1, 0.2, 0.5):
        run(work, seconds)
        assert made.leftovers() == [], f"after {seconds} s"


def test_no_room_for_the_disk(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qcow2, "_START_BYTES", 1 << 60)
    with pytest.raises(OutOfResources):
        start(made)
    assert made.leftovers() == []


@pytest.mark.parametrize(
    ("script", "text", "words"),
    [
        ("boot.sh", "echo so; echo sad >&2; exit 3", "boot.sh ended with status 3"),
        ("break.sh", "echo so; echo sad >&2; exit 4", "break.sh ended with status 4"),
        ("session.sh", "echo so; echo sad >&2; exit 5", "session.sh ended with status 5"),
        ("ready.sh", "echo so; echo sad >&2; exit 127", "ready.sh ended with status 127"),
    ],
)
def test_a_failed_script_says_what_came_out(
    made: World, script: str, text: str, words: str
) -> None:
    made.write(script, f"#!/bin/sh\n{text}\n")
    with pytest.raises(BootFailed, match=words) as caught:
        start(made)
    assert caught.value.detail is not None
    assert "so\nsad" in caught.value.detail
    assert "Linux version fake" in caught.value.detail
    assert made.leftovers() == []


def test_ready_is_asked_again_until_time_is_up(made: World) -> None:
    made.write(
        "ready.sh",
        '#!/bin/sh\necho ready >> "$FAKE_ROOT/log"\n[ $(wc -l < "$FAKE_ROOT/log") -gt 5 ]\n',
    )
    assert made.log(start(made)) == ["boot", "break", "session", "ready", "ready", "ready"]
    made.write("ready.sh", "#!/bin/sh\necho never; exit 1\n")
    told = r"tiny: not broken as told: ready.sh ended with status 1 \(4 s after its kernel was up\)"
    with pytest.raises(BootFailed, match=told) as caught:
        start(made, boot_timeout=2.0)
    assert "never" in (caught.value.detail or "")
    assert "BUGBOX_TIMEOUT_FACTOR" in (caught.value.hint or "")


def test_a_last_try_that_hangs_does_not_hide_what_the_others_said(made: World) -> None:
    made.write(
        "ready.sh",
        '#!/bin/sh\necho ready >> "$FAKE_ROOT/log"\n'
        '[ $(wc -l < "$FAKE_ROOT/log") -gt 5 ] && sleep 100\nexit 1\n',
    )
    with pytest.raises(BootFailed, match=r"ready\.sh ended with status 1 \(4 s"):
        start(made, boot_timeout=2.0)


def test_a_hanging_script_ends_with_the_boot_time(made: World) -> None:
    made.write("boot.sh", "#!/bin/sh\nsleep 100\n")
    with pytest.raises(BootFailed, match=r"tiny: boot\.sh did not end in time") as caught:
        start(made, boot_timeout=2.0)
    assert "BUGBOX_TIMEOUT_FACTOR" in (caught.value.hint or "")
    assert made.leftovers() == []


@pytest.mark.parametrize("fault", ["fake.panic", "fake.failed", "fake.silent"])
def test_a_machine_that_does_not_boot(
    made: World, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = path.Kernel
    monkeypatch.setattr(path, "Kernel", lambda **given: kernel(**{**given, "extra_args": (fault,)}))
    with pytest.raises(BootFailed, match="did not boot"):
        start(made, boot_timeout=0.5)
    assert made.leftovers() == []


def systemctl(made: World, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the fake guest another systemctl."""
    prepare = fake.folder

    def folder(spec: MachineSpec) -> Path:
        found = prepare(spec)
        (found / "bin").mkdir(parents=True, exist_ok=True)
        program = found / "bin" / "systemctl"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return found

    monkeypatch.setattr(fake, "folder", folder)


_DEGRADED = "case $1 in list-units) echo sad.service x y;; *) echo degraded; exit 1;; esac"


def test_degraded_is_for_puzzles_only(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(made, _DEGRADED, monkeypatch)
    assert load(made.home, start(made)).degraded == ("sad.service",)

    async def bare() -> None:
        await provision(made.bare(), made.parts, made.host, Stopwatch())

    with pytest.raises(BootFailed, match="units failed: sad"):
        run(bare)


def test_systemd_that_gives_up_is_told_at_once(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl(made, "echo maintenance; exit 1", monkeypatch)
    with pytest.raises(BootFailed, match="maintenance"):
        start(made)


def test_systemd_is_asked_until_it_answers(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    again = (
        "n=$FAKE_ROOT/asked; echo >> $n; [ $(wc -l < $n) -gt 3 ] && echo running && exit; "
        "echo Failed to connect to bus >&2; exit 1"
    )
    systemctl(made, again, monkeypatch)
    start(made)


def test_another_init_says_itself_that_it_is_done(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As systemctl does where systemd is not process 1; the init is done a moment later.
    offline = (
        'mkdir -p "$FAKE_ROOT/run"; (sleep 0.2; printf "mounts\\nnetwork\\n" '
        '>"$FAKE_ROOT/run/init-ready") & echo offline; exit 1'
    )
    systemctl(made, offline, monkeypatch)
    assert load(made.home, start(made)).degraded == ("mounts", "network")


def test_another_init_that_is_never_done(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl(made, "echo offline; exit 1", monkeypatch)
    with pytest.raises(BootFailed, match="its init was not done in time"):
        start(made, boot_timeout=1.0)
    assert made.leftovers() == []


def test_two_sessions_have_users_of_their_own(made: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives a machine another user")
    assert own_uid(made.home, made.settings, "tiny-aaaa") is None  # these settings stay root
    settings = Settings(uid_base=1_900_000_000)
    first = own_uid(made.home, settings, "tiny-aaaa")
    assert first is not None
    ledger = record.claim(made.home, "tiny", spec={"uid": first})
    assert own_uid(made.home, settings, "tiny-aaaa") == first + 1
    give_back(ledger)


def test_the_description_survives_json(made: World) -> None:
    ledger = record.claim(made.home, "tiny")
    spec = path._spec(ledger, made.plan(), made.parts, made.host)
    assert from_json(to_json(spec)) == spec
    assert spec.boot_timeout == 60.0 * made.settings.timeout_factor
    give_back(ledger)


def test_give_back_leaves_nothing_running(made: World) -> None:
    id = start(made)
    ledger = record.take_over(made.home, id)
    assert ledger is not None
    give_back(ledger)
    eventually(lambda: made.leftovers() == [])


def test_a_jail_is_written_down_before_the_same_disk_boots_in_it(made: World) -> None:
    """One that was started unjailed, under other settings."""
    ledger = record.take_over(made.home, start(made))
    assert ledger is not None and JAIL not in ledger.record.holds
    seen: list[tuple[str, ...]] = []

    class Jailed(fake.FakeDriver):
        @property
        def abilities(self) -> Abilities:
            return replace(super().abilities, jailed=True)

        async def boot(self, *args: Any, **kwargs: Any) -> fake.FakeMachine:
            seen.append(tuple(load(made.home, ledger.record.id).holds))
            raise BootFailed("no")

    host = replace(made.host, driver=Jailed())
    with pytest.raises(BootFailed, match="no"):
        run(path.boot_same_disk, ledger, made.plan(), host, Stopwatch())
    assert len(seen) == 1 and JAIL in seen[0]
    give_back(ledger)


def test_the_folder_of_a_machines_sockets_stays_ours(tmp_path: Path) -> None:
    """A VMM that was broken out of can put nothing where we connect."""
    folder = tmp_path / "run" / "one-3f9k"
    make_socket_folder(folder)
    make_socket_folder(folder)
    status = folder.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (os.geteuid(), 0o700)
