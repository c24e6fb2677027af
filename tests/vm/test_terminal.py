# SPDX-License-Identifier: Apache-2.0
"""`bugbox shell` at a real terminal, into a real machine: what a person's hands do."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from bugbox.keeper.client import request
from bugbox.paths import Home
from tests.conftest import FACTOR, Bugbox, borrowing
from tests.unit.cli_world import Typist

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

#: The end of it: Debian colours it.
PROMPT = b"~\x1b[00m$ "


@pytest.fixture(scope="module")
def machine(built: Home) -> Iterator[tuple[Bugbox, str]]:
    """One machine for all of this; each test sits down at it anew."""
    with borrowing(built) as folder:
        command = Bugbox(folder)
        try:
            yield command, command.start("--image", "debian-12")
        finally:
            command.end()


class Person(Typist):
    """Somebody who sits at `bugbox shell`."""

    def __init__(self, machine: tuple[Bugbox, str], rows: int = 24, columns: int = 80) -> None:
        command, id = machine
        home = str(command.home.root)
        super().__init__("shell", id, rows=rows, columns=columns, BUGBOX_HOME=home)

    def sees(self, text: bytes) -> bytes:
        """What was printed before `text`."""
        return self.until(text, 60 * FACTOR)

    def asks(self, line: bytes) -> str:
        """What a command prints, between its echo and the next prompt."""
        self.type(line + b"\r")
        self.sees(b"\n")
        *lines, _ = self.sees(PROMPT).decode().replace("\r", "").split("\n")
        return re.sub(r"\x1b\[\?2004[hl]", "", "\n".join(lines)).strip()


def test_the_first_login_is_the_first(machine: tuple[Bugbox, str]) -> None:
    """Bugbox logged in once to see whether that works; nobody is told of it."""
    with Person(machine) as person:
        assert b"Last login" not in person.sees(PROMPT)
        logins = person.asks(b"last -w learner | grep -c ^learner")
        assert logins == "1", "its own and no other"
        assert person.asks(b"echo $TERM; shopt -q login_shell && echo login") == (
            "xterm-256color\nlogin"
        )
        person.type(b"exit\r")
        person.rest()
        assert person.status == 0
        assert person.restored
    with Person(machine) as person:
        assert b"Last login" in person.sees(PROMPT)
        person.type(b"exit\r")
        person.rest()


def test_size_and_ctrl_c(machine: tuple[Bugbox, str]) -> None:
    with Person(machine, rows=30, columns=100) as person:
        person.sees(PROMPT)
        assert person.asks(b"stty size") == "30 100"
        person.resize(41, 123)
        person.process.send_signal(signal.SIGWINCH)
        assert person.asks(
            b"until [ \"$(stty size)\" = '41 123' ]; do sleep 0.1; done; echo ok"
        ) == ("ok")
        assert person.asks(b"tput lines; tput cols") == "41\n123"
        person.type(b"sh -c 'echo asleep-$((1+1)); exec sleep 1000'\r")
        person.sees(b"asleep-2")
        person.type(b"\x03")
        person.sees(PROMPT)
        assert person.asks(b"echo $?") == "130"
        person.type(b"exit\r")
        person.rest()


def test_an_editor(machine: tuple[Bugbox, str]) -> None:
    with Person(machine) as person:
        person.sees(PROMPT)
        person.type(b"vi note\r")
        person.sees(b"\x1b[?1049h")
        person.sees(b'"note"')
        person.type(b"iwritten in vi\x1b:wq\r")
        person.sees(b"\x1b[?1049l")
        person.sees(PROMPT)
        assert person.asks(b"cat note") == "written in vi"
        person.type(b"exit\r")
        person.rest()


def test_the_menu_and_a_detach(machine: tuple[Bugbox, str]) -> None:
    bugbox, id = machine
    with Person(machine) as person:
        person.sees(PROMPT)
        person.type(b"sleep 54321 &\r")
        person.sees(PROMPT)
        person.type(b"\x1d")
        assert b"d detach" in person.sees(b"q quit")
        person.type(b"d")
        assert b"runs on" in person.rest()
        assert person.status == 0
        assert person.restored
    assert [row["state"] for row in bugbox.json("ps")] == ["ready"]
    assert bugbox.root(id, "pgrep -cf '^sleep 54321'").strip() == "1"


def test_a_killed_keeper_does_not_cost_the_shell(machine: tuple[Bugbox, str]) -> None:
    bugbox, _ = machine
    with Person(machine) as person:
        person.sees(PROMPT)
        before = person.asks(b"echo $$; tty")
        pid = request(bugbox.home, "ping")["pid"]
        os.kill(pid, signal.SIGKILL)
        person.sees(b"the keeper was restarted")
        # What was on the screen comes first, so there are prompts before the one that counts.
        person.type(b"echo here-$((40+2))\r")
        person.sees(b"here-42")
        person.sees(PROMPT)
        assert person.asks(b"echo $$; tty") == before
        assert request(bugbox.home, "ping")["pid"] != pid
        person.type(b"exit\r")
        person.rest()
        assert person.status == 0
