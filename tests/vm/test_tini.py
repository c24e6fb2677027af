# SPDX-License-Identifier: Apache-2.0
"""The same machine with a small init as process 1: what a guest promises holds there too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import prepare
from tests.conftest import Bugbox, borrowing
from tests.vm.test_session_machines import a_life, write_tiny
from tests.vm.test_terminal import PROMPT, Person

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

IMAGE = "debian-12-tini"


@pytest.fixture(scope="module")
def machine(built: Home) -> Iterator[tuple[Bugbox, str]]:
    """One machine for all that does not end it."""
    prepare.ensure(built, load(built), IMAGE)
    with borrowing(built) as folder:
        command = Bugbox(folder)
        try:
            yield command, command.start("--image", IMAGE, "--cold")
        finally:
            command.end()


def test_process_1_and_what_it_has_mounted(machine: tuple[Bugbox, str]) -> None:
    bugbox, id = machine
    assert bugbox.root(id, "readlink /proc/1/exe").strip() == "/usr/bin/busybox"
    assert bugbox.root(id, "cat /run/init-ready") == "", "something failed at boot"
    assert bugbox.root(id, "systemctl is-system-running", ok=(1,)).strip() == "offline"
    where = "/dev/pts /dev/shm /dev/mqueue /run /run/lock /sys/fs/cgroup /sys/kernel/tracing"
    kinds = bugbox.root(id, f"for m in {where}; do findmnt -no FSTYPE $m; done").split()
    assert kinds == ["devpts", "tmpfs", "mqueue", "tmpfs", "tmpfs", "cgroup2", "tracefs"]
    assert bugbox.root(id, "stat -c %a /dev/shm /run/lock /dev/ptmx").split() == [
        *("1777", "1777", "666"),
    ]
    assert bugbox.root(id, "cat /proc/sys/kernel/hostname").strip() == id
    assert len(bugbox.root(id, "cat /etc/machine-id").strip()) == 32
    assert bugbox.root(id, "stat -c %a /dev/fuse /dev/net/tun").split() == ["666", "666"]
    assert "LOWER_UP" in bugbox.root(id, "ip -o link show lo")
    assert "pids" in bugbox.root(id, "cat /sys/fs/cgroup/cgroup.subtree_control").split()
    # Nothing listens, and nobody runs who was not asked to.
    assert bugbox.root(id, "ss -Hltu") == ""
    assert bugbox.root(id, "pgrep -c sshd || true").strip() == "0"


def test_a_terminal(machine: tuple[Bugbox, str]) -> None:
    with Person(machine, rows=30, columns=100) as person:
        person.sees(PROMPT)
        assert person.asks(b"tty").startswith("/dev/pts/")
        assert person.asks(b"stty size") == "30 100"
        assert person.asks(b"cat <(echo of-a-pipe) /dev/stdin </dev/null") == "of-a-pipe"
        assert person.asks(b"sudo id -u; sudo -u root tty | cut -c1-9") == "0\n/dev/pts/"
        person.type(b"sh -c 'echo asleep-$((1+1)); exec sleep 1000'\r")
        person.sees(b"asleep-2")
        person.type(b"\x03")
        person.sees(PROMPT)
        assert person.asks(b"echo $?") == "130"
        person.type(b"exit\r")
        person.rest()
        assert person.status == 0


def test_statuses_and_orphans(machine: tuple[Bugbox, str]) -> None:
    bugbox, id = machine
    assert bugbox("shell", id, "--", "sh", "-c", "exit 7", ok=(7,)).stdout == b""
    bugbox("shell", id, "--", "sh", "-c", "kill -9 $$", ok=(137,))
    # Process 1 takes in whoever has lost its parent, and buries the dead.
    bugbox.root(id, "(sh -c 'sh -c \"sleep 0.1\" & exit' &); sleep 0.3")
    look = "for i in $(seq 50); do ps -eo stat | grep -q ^Z || exit 0; sleep 0.1; done; ps -ef"
    bugbox.root(id, f"{look}; exit 1")


def test_sshd_when_it_is_turned_on(machine: tuple[Bugbox, str]) -> None:
    bugbox, id = machine
    bugbox.root(id, "sed -i 's/^#::respawn:/::respawn:/' /etc/inittab && kill -HUP 1")
    look = "for i in $(seq 300); do ss -Hltn | grep -q :22 && exit; sleep 0.1; done; exit 1"
    bugbox.root(id, look)
    line = "script -qec 'ssh -tt localhost tty' /dev/null </dev/null"
    assert "/dev/pts/" in bugbox("shell", id, "--", "sh", "-c", line).stdout.decode()


def test_the_lifeline_comes_back(machine: tuple[Bugbox, str]) -> None:
    bugbox, id = machine
    bugbox("shell", id, "--root", "--", "sh", "-c", "kill -9 -1", ok=tuple(range(256)))
    assert bugbox.root(id, "echo back").strip() == "back"


def test_a_life(bugbox: Bugbox, tmp_path: Path) -> None:
    """As with systemd: the scripts, a reboot, poweroff and resume, checks, reset."""
    folder = write_tiny(tmp_path / "tiny", f"base: {IMAGE}\n")
    prepare.ensure(bugbox.home, load(bugbox.home), load_puzzle(folder))
    a_life(bugbox, folder)
