# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811
"""`bugbox shell ID -- CMD`: streams, bytes, status, and whose Ctrl-C it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest
from cli_world import FakeKeeper, Typist, bugbox, home, keeper  # noqa: F401

from bugbox.keeper import protocol

EVERY_BYTE = bytes(range(256)) * 300


def answers(keeper: FakeKeeper, how: Any) -> None:
    def exec(talk: Any, args: dict[str, Any]) -> None:
        talk.stream()
        how(talk, args)

    keeper.verbs["exec"] = exec


def test_streams_stay_apart_and_the_status_is_the_commands(keeper: FakeKeeper) -> None:
    def how(talk: Any, args: dict[str, Any]) -> None:
        talk.frame(protocol.STDOUT, b"out\n")
        talk.frame(protocol.STDERR, b"err\n")
        talk.frame(protocol.EXIT, {"code": 7})

    answers(keeper, how)
    done = bugbox("shell", "read-me", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    args = keeper.asked[0][1]
    assert args["argv"] == ["sh", "-c", "echo out; echo err >&2; exit 7"]
    assert args["id"] == "read-me"


@pytest.mark.parametrize(("how", "status"), [({"signal": 15}, 143), ({"code": 0}, 0)])
def test_a_signal_is_128_and_its_number(
    keeper: FakeKeeper, how: dict[str, int], status: int
) -> None:
    answers(keeper, lambda talk, _: talk.frame(protocol.EXIT, how))
    assert bugbox("shell", "--", "x").returncode == status


def test_input_and_output_are_bytes(keeper: FakeKeeper) -> None:
    def how(talk: Any, args: dict[str, Any]) -> None:
        for kind, payload in talk.frames():
            if kind == protocol.STDIN:
                talk.frame(protocol.STDOUT, payload)
                talk.frame(protocol.STDERR, payload[::-1])
            elif kind == protocol.STDIN_EOF:
                talk.frame(protocol.EXIT, {"code": 0})
                return

    answers(keeper, how)
    done = bugbox("shell", "--", "tee", input=EVERY_BYTE)
    assert done.returncode == 0 and done.stdout == EVERY_BYTE
    assert len(done.stderr) == len(EVERY_BYTE)


def test_arguments_are_bytes(keeper: FakeKeeper) -> None:
    answers(keeper, lambda talk, _: talk.frame(protocol.EXIT, {"code": 0}))
    subprocess.run(
        [sys.executable, "-m", "bugbox", "shell", "--", b"\xff\xfe", "", "--json", "-t"],
        stdin=subprocess.DEVNULL, timeout=30, check=True,
    )  # fmt: skip
    assert keeper.asked[0][1]["argv"] == ["\udcff\udcfe", "", "--json", "-t"]


def test_no_input_at_all(keeper: FakeKeeper) -> None:
    def how(talk: Any, args: dict[str, Any]) -> None:
        time.sleep(0.2)
        talk.frame(protocol.EXIT, {"code": 5})

    answers(keeper, how)
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m bugbox shell -- true <&-"], timeout=30, check=False
    )
    assert done.returncode == 5


def test_a_script_on_standard_input_is_a_login_shell_without_a_terminal(
    keeper: FakeKeeper,
) -> None:
    answers(keeper, lambda talk, _: talk.frame(protocol.EXIT, {"code": 0}))
    assert bugbox("shell", "read-me", input=b"uptime\n").returncode == 0
    assert keeper.asked[0][1]["argv"] == ["/bin/bash", "-l"]


def test_the_machine_is_lost_under_a_command(keeper: FakeKeeper) -> None:
    def how(talk: Any, args: dict[str, Any]) -> None:
        told = {"kind": "MachineLost", "message": "it was killed", "hint": None, "exit": 1}
        talk.frame(protocol.ERROR, told)

    answers(keeper, how)
    done = bugbox("shell", "--", "sleep", "9")
    assert done.returncode == 1 and b"it was killed" in done.stderr


def test_the_keeper_is_killed_under_a_command(keeper: FakeKeeper) -> None:
    answers(keeper, lambda talk, _: None)
    done = bugbox("shell", "--", "sleep", "9")
    assert done.returncode == 1 and b"the keeper ended the connection" in done.stderr


def test_ctrl_c_at_a_terminal_belongs_to_the_command(keeper: FakeKeeper) -> None:
    signals: list[bytes] = []

    def how(talk: Any, args: dict[str, Any]) -> None:
        talk.frame(protocol.STDOUT, b"running")
        for kind, payload in talk.frames():
            if kind == protocol.SIGNAL:
                signals.append(payload)
                if len(signals) == 3:
                    talk.frame(protocol.EXIT, {"signal": 2})
                    return
                talk.frame(protocol.STDOUT, b"caught")

    answers(keeper, how)
    with Typist("shell", "--", "sleep", "100") as person:
        person.until(b"running")
        for _ in range(2):
            person.type(b"\x03")
            person.until(b"caught")
        person.type(b"\x03")
        assert person.status == 130
    assert signals == [b'{"signo":2}'] * 3


def test_ctrl_c_in_a_script_ends_us_and_hangs_up(keeper: FakeKeeper) -> None:
    hung_up = []

    def how(talk: Any, args: dict[str, Any]) -> None:
        talk.frame(protocol.STDOUT, b"running")
        for _ in talk.frames():
            pass
        hung_up.append(True)

    answers(keeper, how)
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "bugbox", "shell", "--", "sleep", "100"],
        stdin=read,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(7)
    process.send_signal(2)
    process.communicate(timeout=30)
    os.close(read)
    os.close(write)
    assert process.returncode == 130
    for _ in range(1000):
        if hung_up:
            break
        time.sleep(0.01)
    assert hung_up


def test_a_reader_that_goes_away_does_not_crash_us(keeper: FakeKeeper) -> None:
    def how(talk: Any, args: dict[str, Any]) -> None:
        while True:
            talk.frame(protocol.STDOUT, b"x" * 60000)

    answers(keeper, how)
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m bugbox shell -- yes | head -c 10"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stdout == b"x" * 10 and done.stderr == b""
