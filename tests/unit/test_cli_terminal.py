# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811
"""Shells on a real pty: raw and put right again, the menu, the size, and every way it can end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from cli_world import FakeKeeper, Typist, home, keeper, report  # noqa: F401

from bugbox.cli.raw import Modes
from bugbox.cli.terminal import escape_key, key_name
from bugbox.errors import UserError
from bugbox.keeper import protocol

INFO = {"terminal": "t1", "title": "A letter you cannot open", "goal": "Read it."}


class Guest:
    """A login that echoes, and remembers what it was told."""

    def __init__(self, keeper: FakeKeeper) -> None:
        self.typed = b""
        self.sizes: list[tuple[int, int]] = []
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.detached = False
        self.talk: Any = None
        keeper.verbs |= {"terminal": self._terminal, "attach": self._attach}

    def _terminal(self, talk: Any, args: dict[str, Any]) -> None:
        self.opened.append(("terminal", args))
        talk.stream(**INFO)
        self._serve(talk, b"guest$ ")

    def _attach(self, talk: Any, args: dict[str, Any]) -> None:
        self.opened.append(("attach", args))
        talk.stream(terminal=args["terminal"])
        self._serve(talk, b"again$ ")

    def _serve(self, talk: Any, prompt: bytes) -> None:
        self.talk = talk
        talk.frame(protocol.STDOUT, prompt)
        for kind, payload in talk.frames():
            if kind == protocol.STDIN:
                self.typed += payload
                talk.frame(protocol.STDOUT, b"<" + payload + b">")
            elif kind == protocol.RESIZE:
                told = json.loads(payload)
                self.sizes.append((told["rows"], told["cols"]))
            elif kind == protocol.DETACH:
                self.detached = True
                talk.frame(protocol.EXIT, {"code": 0})

    def ends(self, **how: int) -> None:
        self.talk.frame(protocol.EXIT, how)


@pytest.fixture
def guest(keeper: FakeKeeper) -> Guest:
    return Guest(keeper)


def test_a_login_from_the_greeting_to_its_status(guest: Guest) -> None:
    with Typist("shell", "read-me") as person:
        greeting = person.until(b"guest$ ").decode()
        assert "A letter you cannot open" in greeting and "Read it." in greeting
        assert "Ctrl-] opens the menu" in greeting
        assert person.raw
        person.type(b"ls\r\x03\x1a\x00\xff")
        person.until(b"\xff>")
        assert guest.typed == b"ls\r\x03\x1a\x00\xff"
        guest.ends(code=7)
        person.rest()
        assert person.status == 7
        assert person.restored
        assert guest.opened[0][1]["term"] == "xterm-256color"
        assert (guest.opened[0][1]["rows"], guest.opened[0][1]["cols"]) == (24, 80)


def test_a_login_ended_by_a_signal(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        guest.ends(signal=9)
        assert person.status == 137 and person.restored


def test_the_size_follows(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        person.resize(50, 132)
        _wait_for(lambda: (50, 132) in guest.sizes)


def test_bytes_of_a_live_terminal_pass_unchanged(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        every = bytes(range(256))
        guest.talk.frame(protocol.STDOUT, every + b"END")
        assert person.until(b"END").endswith(every)


def test_the_menu_checks(guest: Guest, keeper: FakeKeeper) -> None:
    keeper.verbs["check"] = lambda talk, _: talk.result(report(False, "failed", message="Not so."))
    with Typist("shell") as person:
        person.until(b"guest$ ")
        person.type(b"\x1d")
        menu = person.until(b"send it").decode()
        for entry in ("c check", "h hint", "s story", "d detach", "q quit", "Ctrl-]"):
            assert entry in menu
        person.type(b"c")
        assert b"Not so." in person.until(b"Not solved yet")
        # Whoever draws in the guest is asked to draw again.
        _wait_for(lambda: guest.sizes[-2:] == [(24, 79), (24, 80)])
        assert guest.typed == b""
        person.type(b"x")
        person.until(b"<x>")
        assert person.raw


def test_hint_and_story(guest: Guest, keeper: FakeKeeper) -> None:
    hint = {"n": 1, "of": 3, "title": "Look", "text": "There.", "cost": 0, "next_in_s": None}
    keeper.verbs["hint"] = lambda talk, _: talk.result(hint)
    with Typist("shell") as person:
        person.until(b"guest$ ")
        for key, told in (
            (b"h", b"There."),
            (b"s", b"back from holiday"),
        ):
            person.type(b"\x1d" + key)
            person.until(told)
        person.type(b"\x1d\x1b[Ay")  # an arrow key closes the menu, and is not typed in the guest
        person.until(b"<y>")
        assert guest.typed == b"y"


def test_a_hint_that_is_held_back_is_given_by_the_same_key(
    guest: Guest, keeper: FakeKeeper
) -> None:
    hint = {"n": 1, "of": 3, "title": "Look", "cost": 0, "next_in_s": 90}

    def give(talk: Any, args: dict[str, Any]) -> None:
        talk.result({**hint, "text": "There." if args["now"] else None})

    keeper.verbs["hint"] = give
    with Typist("shell") as person:
        person.until(b"guest$ ")
        person.type(b"\x1dh")
        person.until(b"Now: h in this menu once more")
        person.type(b"\x1dh")
        person.until(b"There.")


@pytest.mark.parametrize("key", [b"\x1d", b"\x1b[93;5u", b"\x1b[27;5;93~"])
def test_the_key_typed_twice_goes_through(guest: Guest, key: bytes) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        person.type(b"a" + key)
        person.until(b"send it")
        person.type(key + b"b")
        person.until(b"b>")
        assert guest.typed == b"a" + key + b"b"


def test_the_key_can_be_another_or_none(guest: Guest) -> None:
    with Typist("shell", BUGBOX_ESCAPE="^T") as person:
        assert b"Ctrl-t opens" in person.until(b"guest$ ")
        person.type(b"\x1d")
        person.until(b"<\x1d>")
        person.type(b"\x14")
        person.until(b"Ctrl-t send it")
    with Typist("shell", BUGBOX_ESCAPE="none") as person:
        assert b"menu" not in person.until(b"guest$ ")
    with Typist("shell", BUGBOX_ESCAPE="F12") as person:
        assert b"caret name" in person.rest() and person.status == 2


def test_names_of_keys() -> None:
    assert escape_key("^]") == 0x1D and escape_key("^t") == escape_key("^T") == 0x14
    assert escape_key("none") is None and key_name(0x1D) == "Ctrl-]"
    with pytest.raises(UserError):
        escape_key("^!")


def test_detaching_leaves_the_login_running(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        guest.talk.frame(
            protocol.STDOUT, b"\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[?1000;1006h\x1b=vim"
        )
        person.until(b"vim")
        person.type(b"\x1d")
        person.until(b"send it")
        person.type(b"d")
        end = person.rest()
        assert b"bugbox shell read-me-3f9k goes back" in end
        assert person.status == 0 and person.restored and guest.detached
        # What the editor had switched on is off again; the screen comes back last.
        for mode in (b"\x1b[?25h", b"\x1b[?2004l", b"\x1b[?1000l", b"\x1b[?1006l", b"\x1b>"):
            assert mode in end, mode
        assert end.index(b"\x1b[?1049l") > end.index(b"\x1b[?2004l")


def test_ctrl_c_stops_the_check_and_not_the_terminal(guest: Guest, keeper: FakeKeeper) -> None:
    def check(talk: Any, _: Any) -> None:
        assert talk.sock.recv(1) == b""
        talk.error("Interrupted", "interrupted", 130)

    keeper.verbs["check"] = check
    with Typist("shell") as person:
        person.until(b"guest$ ")
        for _ in range(2):  # not the second one either, when the first was dealt with
            person.type(b"\x1dc")
            _wait_for(lambda: keeper.asked[-1][0] == "check")
            _wait_for(lambda: not person.raw)
            time.sleep(0.1)
            person.type(b"\x03")
            person.until(b"interrupted")
            _wait_for(lambda: person.raw)
        person.type(b"z")
        person.until(b"<z>")


def test_an_error_of_an_action_does_not_cost_the_terminal(guest: Guest, keeper: FakeKeeper) -> None:
    keeper.verbs["hint"] = lambda talk, _: talk.error("NotFound", "it has no hints", 2)
    with Typist("shell") as person:
        person.until(b"guest$ ")
        person.type(b"\x1dh")
        person.until(b"it has no hints")
        person.type(b"z")
        person.until(b"<z>")


def test_a_machine_that_is_killed_ends_the_shell_with_clear_words(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        told = {
            "kind": "MachineLost",
            "message": "read-me-3f9k is failed: its VMM was killed",
            "hint": "bugbox reset read-me-3f9k",
            "detail": None,
            "exit": 1,
        }
        guest.talk.frame(protocol.ERROR, told)
        end = person.rest()
        assert b"its VMM was killed" in end and b"bugbox reset" in end
        assert person.status == 1 and person.restored


def test_a_reboot_is_told_and_the_shell_goes_on(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        guest.talk.frame(protocol.NOTICE, {"text": "rebooting…", "state": "rebooting"})
        person.until("[rebooting…]".encode())
        notice = {"text": "the machine is back", "state": "ready", "terminal": "t2"}
        guest.talk.frame(protocol.NOTICE, notice)
        person.until(b"is back")
        guest.talk.frame(protocol.STDOUT, b"login$ ")
        person.until(b"login$ ")
        person.type(b"x")
        person.until(b"<x>")


def test_a_keeper_that_is_killed_is_reached_again(guest: Guest, keeper: FakeKeeper) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        keeper.die_and_come_back()
        person.until(b"again$ ")
        assert guest.opened[-1][0] == "attach"
        assert guest.opened[-1][1]["terminal"] == "t1"
        assert guest.opened[-1][1]["rescue"] is False
        person.type(b"x")
        person.until(b"<x>")
        guest.ends(code=0)
        assert person.status == 0 and person.restored


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGHUP])
def test_a_lost_terminal_is_put_right_and_the_login_lives_on(guest: Guest, signo: int) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        assert person.raw
        person.kill(signo)
        assert person.status == 130 and person.restored
        assert not guest.detached


def test_the_terminals_other_end_goes_away(guest: Guest) -> None:
    person = Typist("shell")
    person.until(b"guest$ ")
    os.close(person.slave)
    os.close(person.master)
    assert person.status == 130


def test_an_unexpected_exception_still_puts_the_terminal_right(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        guest.talk.frame(protocol.NOTICE, b"no json")
        end = person.rest()
        assert person.status == 70 and person.restored and b"please send the report" in end


def test_a_command_on_a_terminal(guest: Guest) -> None:
    with Typist("shell", "id", "-t", "--root", "--", "vim", "-R") as person:
        assert b"menu" not in person.until(b"guest$ ")
        args = guest.opened[0][1]
        assert args["argv"] == ["vim", "-R"] and args["root"] is True
        guest.ends(code=3)
        assert person.status == 3 and person.restored


def test_rescue_and_user_are_passed_on(guest: Guest) -> None:
    with Typist("shell", "--rescue", "--user", "postmaster") as person:
        person.until(b"guest$ ")
        args = guest.opened[0][1]
        assert args["rescue"] is True and args["user"] == "postmaster" and args["argv"] is None


def test_a_big_paste_arrives_whole(guest: Guest) -> None:
    with Typist("shell") as person:
        person.until(b"guest$ ")
        pasted = b"".join(b"%06d\r" % n for n in range(3000))
        for at in range(0, len(pasted), 1000):
            person.type(pasted[at : at + 1000])
        person.until(b"002999\r>")
        assert guest.typed == pasted


def test_modes_are_seen_wherever_they_are_cut() -> None:
    text = b"a\x1b[?1049;2004hb\x1b[?25lc\x1b[>1ud"
    for cut in range(len(text)):
        modes = Modes()
        modes.feed(text[:cut])
        modes.feed(text[cut:])
        undo = modes.undo()
        assert undo == b"\x1b[?25h\x1b[?2004l\x1b[?1049l\x1b[<1u\x1b[0m", cut
        assert modes.undo() == b""


def test_modes_that_were_put_back_need_nothing() -> None:
    modes = Modes()
    modes.feed(b"\x1b[?1049h\x1b[?25l plain \x1b[?25h\x1b[?1049l")
    assert modes.undo() == b"" and not modes.alternate
    modes.feed(b"\x1b[?1049h")
    assert modes.alternate
    modes.feed(b"\x1bc")
    assert not modes.alternate


def _wait_for(true: Any, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
