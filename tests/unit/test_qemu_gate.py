# SPDX-License-Identifier: Apache-2.0
"""What a machine's network lets out: the addresses that are named, and nothing else."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.machine.qemu import gate, gatekeeper
from bugbox.machine.qemu.gate import Order, known, resolved
from bugbox.machine.qemu.gatekeeper import answer, question, serve
from bugbox.network.around import is_ours
from bugbox.network.lookup import looked_up

#: This host itself, as an owner may allow.
THERE = "127.0.0.1"


def order(*goals: str, **changes: object) -> Order:
    plain: dict[str, object] = {"names": False, "private": True, "uid": None, "groups": ()}
    if "found" not in changes:
        found, failed = looked_up(each.rpartition(":")[0] for each in goals)
        plain |= {"found": found, "failed": failed}
    return Order(goals=goals, **{**plain, **changes})  # type: ignore[arg-type]


def asked(name: str, kind: int = 1, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
    head = struct.pack("!HHHHHH", 0x1234, flags, 1, 0, 0, 0)
    return head + labels + struct.pack("!BHH", 0, kind, 1)


def test_a_question_is_read_and_answered() -> None:
    data = asked("Printer.LAN")
    known = {"printer.lan": ["192.0.2.7", "192.0.2.8"], "nowhere.lan": []}
    assert question(data) == ("printer.lan", 1, len(data))
    said = answer(data, question(data) or ("", 0, 0), known)
    assert said[:12] == struct.pack("!HHHHHH", 0x1234, 0x8180, 1, 2, 0, 0)
    assert said[12 : len(data)] == data[12:]
    assert [said[-4:], said[-20:-16]] == [bytes([192, 0, 2, 8]), bytes([192, 0, 2, 7])]

    def code_and_count(name: str, kind: int = 1) -> tuple[int, int]:
        data = asked(name, kind)
        found = question(data)
        assert found is not None
        said = answer(data, found, known)
        return said[3] & 15, struct.unpack_from("!H", said, 6)[0]

    # Of a name that is allowed there may be nothing; of another nothing is said.
    assert code_and_count("printer.lan", 28) == (0, 0)
    assert code_and_count("nowhere.lan") == (0, 0)
    assert code_and_count("evil.example") == (5, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        asked("a.b")[:-1],
        asked("a.b", flags=0x8100),  # an answer
        asked("a.b")[:12] + b"\xc0\x0c\x00\x01\x00\x01",  # a name that points at itself
        asked("a.b")[:4] + b"\x00\x02" + asked("a.b")[6:],  # two questions
        asked("a.b")[:-1] + b"\x03",  # of another family
        asked("a") + b"x" * 600,
    ],
)
def test_what_is_no_question_is_not_answered(data: bytes) -> None:
    assert question(data) is None


@given(st.binary(max_size=600))
def test_whatever_a_guest_sends_is_read_or_left(data: bytes) -> None:
    found = question(data)
    if found is not None:
        assert len(answer(data, found, {found[0]: ["192.0.2.1"]})) >= len(data[: found[2]])


def test_private_addresses_are_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    goals = (
        "192.168.1.1:80",
        "169.254.169.254:80",
        "127.0.0.1:22",
        "1.1.1.1:53",
        "no-such.invalid:1",
    )
    found = resolved(order(*goals, private=False))
    assert found == {
        "192.168.1.1": [],
        "169.254.169.254": [],
        "127.0.0.1": [],
        "1.1.1.1": [("1.1.1.1", 53)],
        "no-such.invalid": [],
    }
    said = capfd.readouterr().err
    assert "192.168.1.1:80 is 192.168.1.1, of this host or a private network" in said
    assert "no-such.invalid: " in said
    assert resolved(order("192.168.1.1:80")) == {"192.168.1.1": [("192.168.1.1", 80)]}


def test_a_public_address_of_this_host_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_ours(IPv4Address("127.0.0.1")) and not is_ours(IPv4Address("1.1.1.1"))
    monkeypatch.setattr(gate, "is_ours", lambda address: str(address) == "1.1.1.1")
    assert resolved(order("1.1.1.1:22", "1.0.0.1:22", private=False)) == {
        "1.1.1.1": [],
        "1.0.0.1": [("1.0.0.1", 22)],
    }
    assert resolved(order("1.1.1.1:22"))["1.1.1.1"] == [("1.1.1.1", 22)]


def test_names_are_asked_for_at_once_and_a_dead_resolver_costs_one_limit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    never, together = threading.Event(), threading.Barrier(2)

    def ask(host: str, *_: object) -> list[tuple[object, ...]]:
        if host.startswith("dead"):
            never.wait(60)
        if host == "nowhere" or host.startswith("dead"):
            raise socket.gaierror(-2, "Name or service not known")
        together.wait(30)  # one after another would never get further
        return [(0, 0, 0, "", ("198.51.100.7", 0)), (0, 0, 0, "", ("198.51.100.7", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", ask)
    names = ["nowhere", *(f"dead{each}" for each in range(30)), "one", "other", "one"]
    try:
        found, failed = looked_up(names, limit=2.0)
    finally:
        never.set()
    assert found == {"one": ["198.51.100.7"], "other": ["198.51.100.7"]}
    assert failed.pop("nowhere").endswith("Name or service not known")
    assert set(failed.values()) == {"no answer within 2 s"} and len(failed) == 30
    table = resolved(order("dead0:80", "one:80", private=True, found=found, failed=failed))
    assert table == {"dead0": [], "one": [("198.51.100.7", 80)]}
    assert "dead0: no answer within 2 s: left out" in capfd.readouterr().err


def test_what_no_name_could_be_is_left_out() -> None:
    found, failed = looked_up([f"{'x' * 64}.example"])
    assert found == {} and len(failed) == 1


def test_what_is_too_many_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each socket goes to the gate in one message, which takes so many."""

    def many(host: str, *_: object) -> list[tuple[object, ...]]:
        number = int(host.removeprefix("h"))
        return [(0, 0, 0, "", (f"198.51.{number}.{each}", 0)) for each in range(9)]

    monkeypatch.setattr(socket, "getaddrinfo", many)
    found = resolved(order("h1:1"))
    assert found["h1"] == [(f"198.51.1.{each}", 1) for each in range(8)]
    assert "h1:1 has 9 addresses: all but 8 are left out" in capfd.readouterr().err
    # As many goals as a puzzle may have.
    found = resolved(order(*(f"h{each}:1" for each in range(32))))
    assert {len(each) for each in found.values()} == {5}
    assert sum(map(len, found.values())) <= gate._MOST_GOALS
    assert "h31:1 has 9 addresses: all but 5 are left out" in capfd.readouterr().err


def test_an_address_is_told_once_whatever_its_ports() -> None:
    table = resolved(order("192.0.2.7:80", "192.0.2.7:443"))
    assert table == {"192.0.2.7": [("192.0.2.7", 80), ("192.0.2.7", 443)]}
    assert known(table) == {"192.0.2.7": ["192.0.2.7"]}


@pytest.fixture
def page() -> Iterator[tuple[int, list[bytes]]]:
    """Something that answers on this host; its port, and what it was told."""
    told: list[bytes] = []

    def answer_each(server: socket.socket) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                told.append(client.recv(100))
                client.sendall(b"answer")

    with socket.create_server((THERE, 0)) as server:
        threading.Thread(target=answer_each, args=(server,), daemon=True).start()
        yield server.getsockname()[1], told
        server.shutdown(socket.SHUT_RDWR)


PROGRAM = """
import os, socket, sys
print(os.getuid(), end=" ")
for place in sys.argv[1:]:
    host, port = place.split(":")
    try:
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(b"hello")
            print(place, sock.recv(100).decode() or "nothing")
    except OSError as error:
        print(place, error.strerror)
"""


def run(wanted: Order, *places: str) -> tuple[list[str], str]:
    """Run a program behind a gate; what it says, when both of them have ended."""
    argv = [sys.executable, "-P", "-m", gate.__name__, wanted.as_text()]
    done = subprocess.run(
        [*argv, sys.executable, "-c", PROGRAM, *places],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "no network of its own" in done.stderr and os.geteuid() != 0:
        pytest.skip(done.stderr.strip())
    return done.stdout.splitlines(), done.stderr


def test_what_is_named_is_reached_and_nothing_else(page: tuple[int, list[bytes]]) -> None:
    port, told = page
    with socket.create_server((THERE, 0)) as other:
        closed = f"{THERE}:{other.getsockname()[1]}"
        places = (f"{THERE}:{port}", closed, "192.0.2.9:80")
        said, complaint = run(order(f"{THERE}:{port}"), *places)
    assert said == [
        f"{os.geteuid()} {THERE}:{port} answer",
        f"{closed} Connection refused",
        "192.0.2.9:80 Network is unreachable",
    ]
    assert told == [b"hello"] and complaint == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_both_run_as_the_machines_own_user(page: tuple[int, list[bytes]]) -> None:
    port, _ = page
    said, _ = run(order(f"{THERE}:{port}", uid=1_900_000_001), f"{THERE}:{port}")
    assert said == [f"1900000001 {THERE}:{port} answer"]


def test_a_goal_that_does_not_answer(page: tuple[int, list[bytes]]) -> None:
    with socket.create_server((THERE, 0)) as server:
        port = server.getsockname()[1]
    said, _ = run(order(f"{THERE}:{port}"), f"{THERE}:{port}")
    assert len(said) == 1 and "answer" not in said[0]


def test_the_gate_ends_with_the_program_however_that_ends() -> None:
    """Whoever holds the pipe's other end is there: the program, then the gate alone, then none."""
    read, write = os.pipe()
    argv = [sys.executable, "-P", "-m", gate.__name__, order().as_text()]
    program = ["/bin/sh", "-c", "echo here >&2; exec /bin/sleep 600"]
    running = subprocess.Popen([*argv, *program], stderr=write)
    os.close(write)
    with os.fdopen(read) as said:
        try:
            begun = said.readline()  # by the program: the gate has been there since before
            ended = running.poll()
        finally:
            running.kill()
            running.wait(60)
        text = said.read()  # until the gate has closed it, too
    if "no network of its own" in begun and os.geteuid() != 0:
        pytest.skip(begun.strip())
    assert (begun, ended, text) == ("here\n", None, "")


def test_any_name_is_asked_of_the_hosts_server(monkeypatch: pytest.MonkeyPatch) -> None:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((THERE, 0))
    server.settimeout(30)
    monkeypatch.setattr(gatekeeper, "_PORT", server.getsockname()[1])
    guests = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    guests.bind((THERE, 0))
    goal = guests.getsockname()
    ours, theirs = socket.socketpair()
    given = [("names", goal, guests)]
    serving = threading.Thread(target=serve, args=(theirs, given, None, [THERE]))
    serving.start()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as guest:
            guest.settimeout(30)
            guest.sendto(b"no question at all", goal)
            guest.sendto(asked("deb.example", 28), goal)
            data, gatekeepers = server.recvfrom(512)
            assert data == asked("deb.example", 28)
            server.sendto(b"\0\0of another question", gatekeepers)
            server.sendto(data[:2] + b"what is known", gatekeepers)
            assert guest.recv(512) == data[:2] + b"what is known"
    finally:
        ours.close()
        serving.join(30)
        server.close()
    assert not serving.is_alive()
