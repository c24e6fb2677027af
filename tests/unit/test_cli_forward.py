# SPDX-License-Identifier: Apache-2.0
"""A guest's port on this host: which may be opened, and bytes both ways, over a real keeper."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_world import MANIFEST, World, eventually, keeper_argv, world

from bugbox.cli.forward import parse
from bugbox.errors import UserError
from bugbox.keeper.client import request
from bugbox.session.ports import port_of

PORTS = "ports:\n  - {{name: page, port: {}}}\n"


@pytest.fixture
def echo() -> Iterator[int]:
    """A server in "the guest": it sends back what it got once the other side is done."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    got = b""
                    while data := connection.recv(1 << 16):
                        got += data
                    connection.sendall(got[::-1])

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.fixture
def made(tmp_path: Path, echo: int) -> Iterator[World]:
    with world(tmp_path) as made:
        made.write("puzzle.yaml", f"{MANIFEST}ports:\n  - {{name: page, port: {echo}}}\n")
        made.wire()
        yield made


@pytest.fixture
def id(made: World, echo: int) -> Iterator[str]:
    keeper = subprocess.Popen(keeper_argv(made))
    eventually(made.home.keeper_socket.exists)
    made.write("puzzle.yaml", MANIFEST + PORTS.format(echo))  # it has a world of its own
    yield str(request(made.home, "start", {"puzzle": str(made.puzzle)})["id"])
    request(made.home, "stop", {"all": True})
    keeper.terminate()
    keeper.wait(20)


def talk(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        while data := connection.recv(1 << 16):
            got += data
    return got


def test_bytes_go_both_ways_on_many_connections(made: World, id: str, echo: int) -> None:
    env = {**os.environ, "BUGBOX_HOME": str(made.home.root)}
    argv = [sys.executable, "-m", "bugbox", "forward", id, "page:0", "--json"]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += command.stdout.readline()
        told = json.loads(text)
        assert told["id"] == id and told["port"] == echo
        large = os.urandom(300_000)
        assert talk(told["host_port"], large) == large[::-1]
        answers: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: answers.append(talk(told["host_port"], b"abc")))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == [b"cba"] * 8
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 130


def test_only_what_the_puzzle_names_is_opened(made: World, echo: int) -> None:
    plan = made.plan()
    assert port_of(plan, str(echo))["port"] == port_of(plan, "page")["port"] == echo
    with pytest.raises(UserError) as error:
        port_of(plan, "22")
    assert error.value.hint == f"it opens page ({echo})"
    assert port_of(made.bare(), 22)["port"] == 22
    for wrong in ("0", "65536", "page", "-1", ""):
        with pytest.raises(UserError):
            port_of(made.bare(), wrong)


def test_the_words_of_the_command() -> None:
    assert parse("80") == ("80", None)
    assert parse("page:8080") == ("page", 8080)
    for wrong in ("80:", "80:x", "80:70000"):
        with pytest.raises(UserError):
            parse(wrong)
