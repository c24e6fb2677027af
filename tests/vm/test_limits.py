# SPDX-License-Identifier: Apache-2.0
"""A machine that reaches what its puzzle names, has a time, and is checked without being asked."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bugbox.paths import Home
from tests.conftest import FACTOR, Bugbox, borrowing, write_puzzle

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

MANIFEST = """\
schema: 1
name: goals
title: Goals
summary: Some are reached.
network: {{egress: {{allow: ["{address}:{port}", "no-such-name.invalid:80"]}}}}
build: {{network: true}}
session: {{duration: 1s, extend: 2h}}
access: {{terminals: 1, console: false}}
boot: {{timeout: 2m}}
check_policy: {{trigger: auto}}
checks:
  - {{id: done, title: It is done, run: checks/done.sh}}
"""


def address_of_this_host() -> str:
    """Return the address that packets to the outside leave from: none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("198.51.100.1", 9))
        except OSError:
            pytest.skip("this host has no network at all")
        return str(sock.getsockname()[0])


@contextmanager
def asked_of(address: str) -> Iterator[tuple[int, list[str]]]:
    """Serve pages on an address of this host; yield the port, and what is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Here.\n" * 100_000)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60 * FACTOR
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.3)


def gates(id: str) -> int:
    """Processes that pass on what this machine sends: they have the words of its start."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            found += b"machine.qemu.gate" in words and f"guest={id},".encode() in words
    return found


def test_what_it_may_reach_how_long_and_when_it_is_solved(built: Home, tmp_path: Path) -> None:
    address = address_of_this_host()
    with (
        borrowing(built) as home,
        asked_of(address) as (port, asked),
        asked_of(address) as (other, never),
        asked_of("127.0.0.1") as (own, never_either),
    ):
        folder = write_puzzle(
            tmp_path / "goals",
            {
                "puzzle.yaml": MANIFEST.format(address=address, port=port),
                "description.md": "Reach the goal.\n",
                "checks/done.sh": "#!/bin/sh\n[ -e /tmp/done ] || fail 'It is not done.'\n",
                # It reaches all that this host does, so its goals too.
                "build.sh": f"#!/bin/sh\nset -eu\ncurl -sS {address}:{port}/built >/srv/page\n",
            },
        )
        # This very host is no goal of a puzzle's unless its owner says so.
        command = Bugbox(home, BUGBOX_OPEN_NETWORK="on", BUGBOX_LIMITS="on")
        command("build", str(folder), timeout=300)
        assert asked == ["/built"]
        asked.clear()
        try:
            id = command.start(str(folder))
            _time(command, id)
            _reach(command, id, f"{address}:{port}", f"{address}:{other}", own)
            assert asked == ["/seen"] and never == never_either == []
            assert gates(id) == 1
            _done(command, id)
            command("stop", id)
            eventually(lambda: gates(id) == 0)
        finally:
            command.end()


def _time(command: Bugbox, id: str) -> None:
    """Its second was over before it was ready: nobody may use it until it is given more."""
    eventually(lambda: command.json("ps")[0]["state"] == "paused")
    refused = command("shell", id, "--", "true", ok=(1,))
    assert b"its time is over" in refused.stderr
    assert command.json("resume", id)["state"] == "ready"
    assert command.json("ps")[0]["state"] == "ready"
    refused = command("console", id, ok=(1,))
    assert b"gives no console" in refused.stderr


def _reach(command: Bugbox, id: str, goal: str, other: str, own: int) -> None:
    """The goal, whole; not another port of the same address, nor this host's own, nor others."""
    assert (
        command.root(id, f"curl -sS -m 60 {goal}/seen | cmp - /srv/page && echo same") == "same\n"
    )
    for place in (other, f"10.0.2.2:{own}", "198.51.100.9:80"):
        command.root(id, f"curl -sS -m 10 {place}/no", ok=(7, 28))
    # A goal that nobody knows is no mistake, and other names are not looked up for it.
    command.root(id, "getent ahostsv4 no-such-name.invalid", ok=(2,))
    command.root(id, "getent ahostsv4 example.org", ok=(2,))
    told = command.root(id, "ping -c 1 -W 2 198.51.100.9", ok=(1, 2))
    assert " 0 received" in told or told == ""


def _done(command: Bugbox, id: str) -> None:
    assert not command.home.progress.exists()
    command.root(id, "touch /tmp/done")
    eventually(command.home.progress.exists)
    assert command.json("check", id)["solved"] is True
