# SPDX-License-Identifier: Apache-2.0
"""What a manifest asks for, in a real machine: units, names, a mount, a shell; and probes."""

import http.server
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle import tree
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import prepare
from tests.conftest import FACTOR, Bugbox, borrowing
from tests.host.wires_world import ADDRESSES, PORT, get, host_address, world
from tests.isolation import ROWS, documented, rows, serve

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

ALL = bool(os.environ.get("BUGBOX_TEST_ALL"))

FILES = {
    "puzzle.yaml": """\
schema: 1
name: shop
title: The shop
summary: The database is not for passers-by.
network: {hosts: {db.internal: 10.0.2.100}}
machine: {disks: [{name: spool, size: 16MiB, fs: ext4, mount: /var/spool/app}]}
boot: {units: [firewall, sysstat], timeout: 2m}
user: {shell: /bin/dash, sudo: limited, commands: [/usr/bin/systemctl stop menu.socket, /bin/id]}
kernel: "6.1"
variants: {WORD: {random: word, bytes: 6}}
checks:
  - id: page
    title: The menu is there
    where: outside
    timeout: 3s
    probe: {http: "http://shop.lan:8080/menu", contains: Soup}
  - id: db
    title: Nobody else gets in
    where: outside
    timeout: 3s
    probe: {tcp: 5432, closed: true}
  - {id: bell, title: Somebody answers, where: outside, probe: {tcp: 23, contains: Ding}}
  - id: name
    title: Its name is known
    where: outside
    probe: {dns: shop.lan, contains: 10.0.2.100}
""",
    "description.md": "A shop.\n",
    "build.sh": """\
#!/bin/sh
set -eu
cd files
install menu names bell /usr/local/bin
install -m 644 *.socket *.service /etc/systemd/system
systemctl enable menu.socket db.socket names.socket bell.socket
""",
    "files/menu": """\
#!/bin/sh
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
printf 'HTTP/1.0 200 OK\\r\\n\\r\\nSoup of the day\\n'
""",
    "files/bell": "#!/bin/sh\necho Ding\nsleep 60\n",
    "files/names": """\
#!/usr/bin/perl
# Knows one address for every name: what is asked comes after its length.
binmode STDOUT;
read(STDIN, my $size, 2);
read(STDIN, my $asked, unpack('n', $size));
my $answer = substr($asked, 0, 2) . pack('n5', 0x8180, 1, 1, 0, 0) . substr($asked, 12)
    . pack('nnnNnC4', 0xc00c, 1, 1, 60, 4, 10, 0, 2, 100);
print pack('n', length $answer) . $answer;
""",
    "files/menu.socket": """\
[Socket]
ListenStream=0.0.0.0:8080
Accept=yes
[Install]
WantedBy=sockets.target
""",
    "files/menu@.service": """\
[Service]
ExecStart=-/usr/local/bin/menu
StandardInput=socket
StandardOutput=socket
""",
    "files/db.socket": """\
[Socket]
ListenStream=0.0.0.0:5432
Accept=yes
[Install]
WantedBy=sockets.target
""",
    "files/db@.service": """\
[Service]
ExecStart=/bin/cat
StandardInput=socket
StandardOutput=socket
""",
    "files/bell.socket": """\
[Socket]
ListenStream=0.0.0.0:23
Accept=yes
[Install]
WantedBy=sockets.target
""",
    "files/bell@.service": """\
[Service]
ExecStart=-/usr/local/bin/bell
StandardInput=socket
StandardOutput=socket
""",
    "files/names.socket": """\
[Socket]
ListenStream=0.0.0.0:53
Accept=yes
[Install]
WantedBy=sockets.target
""",
    "files/names@.service": """\
[Service]
ExecStart=-/usr/local/bin/names
StandardInput=socket
StandardOutput=socket
""",
    "solve.sh": "#!/bin/sh\ntrue\n",
}


@pytest.fixture(scope="module")
def shop(built: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bugbox, Path]]:
    folder = tmp_path_factory.mktemp("puzzles") / "shop"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        if text.startswith("#!"):
            (folder / name).chmod(0o755)
    with borrowing(built) as home:
        command = Bugbox(home)
        prepare.ensure(command.home, load(command.home), load_puzzle(folder))
        try:
            yield command, folder
        finally:
            command.end()


@pytest.fixture(scope="module")
def machine(shop: tuple[Bugbox, Path]) -> tuple[Bugbox, str]:
    command, folder = shop
    return command, command.start(str(folder))


def check(command: Bugbox, id: str) -> dict[str, tuple[str, str]]:
    report: Any = command.json("check", id, ok=(0, 1, 4), timeout=120)
    return {each["id"]: (each["status"], each["message"]) for each in report["checks"]}


FINE = ("passed", "")


def test_probes_find_what_a_stranger_finds(machine: tuple[Bugbox, str]) -> None:
    command, id = machine
    reachable = ("failed", "port 5432 can be reached from outside")
    assert check(command, id) == {"page": FINE, "db": reachable, "bell": FINE, "name": FINE}
    # Nobody listens; nobody else may; and what comes in is dropped: all of it is "closed".
    command.root(id, "systemctl stop db.socket menu.socket names.socket")
    closed = check(command, id)
    assert closed["db"] == FINE
    assert closed["page"] == ("failed", "nothing answers on port 8080 from outside")
    assert closed["name"][0] == "failed"
    command.root(id, "systemctl start db.socket menu.socket names.socket")
    rules = (
        "table ip t { chain i { type filter hook input priority 0; tcp dport 5000-9000 drop; }; }"
    )
    command.root(id, f"nft '{rules}'")
    dropped = check(command, id)
    assert dropped["db"] == FINE
    assert dropped["page"][0] == "failed" and "does not answer from outside" in dropped["page"][1]
    command.root(id, "nft flush ruleset")
    assert check(command, id)["page"] == FINE


@contextmanager
def asked_of_the_host() -> Iterator[tuple[int, list[str]]]:
    """Serve pages on the host's own 127.0.0.1; yield its port, and what is asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


def what_is_reached(command: Bugbox, id: str) -> dict[str, bool | None]:
    """Which stand-ins of the world a guest reaches, tried all at once; the servers say it too."""
    if os.geteuid() != 0:
        pytest.skip("needs root: networks around this host are made")
    with world(f"bbslirp{os.getpid()}") as around, asked_of_the_host() as (port, asked):
        at_home = serve(host_address(), 0)
        goals = {row: f"{address}:{PORT}" for row, address in ADDRESSES.items()}
        goals |= {"loopback": f"10.0.2.2:{port}", "host": f"{at_home.address}:{at_home.port}"}
        assert all(get(address, PORT) for address in ADDRESSES.values()), "the host reaches all"
        servers = [*around.servers.values(), at_home]
        before = {id: len(server.asked) for id, server in enumerate(servers)}
        tries = [
            f"curl -s -m 20 -o /dev/null {goal}/seen && echo {row} &" for row, goal in goals.items()
        ]
        said = command.root(id, " ".join([*tries, "wait"]), timeout=120).split()
        found: dict[str, bool | None] = {row: row in said for row in goals}
        for (row, server), had in zip(
            [*around.servers.items(), ("host", at_home)], before.values(), strict=True
        ):
            assert (len(server.asked) > had) == found[row], row
        assert bool(asked) == found["loopback"]
        at_home.close()
    return found | {row: None for row in ROWS if row not in found}


def test_the_guest_reaches_nothing_by_that_card(machine: tuple[Bugbox, str]) -> None:
    """Not the host's own services either, which answer whoever is on the host."""
    command, id = machine
    assert "10.0.2.15" in command.root(id, "ip -4 -o addr show scope global"), "it has an address"
    found = what_is_reached(command, id)
    print(rows(found))
    assert found == documented("slirp, none")


@pytest.mark.skipif(not ALL, reason="BUGBOX_TEST_ALL=1: another machine")
def test_the_whole_network_is_there_where_the_owner_says_so(built: Home, tmp_path: Path) -> None:
    """All of it: that the host's own services are among it is why somebody has to say so."""
    with borrowing(built) as home:
        command = Bugbox(home)
        command("new", "wide", cwd=tmp_path)
        with (tmp_path / "wide/puzzle.yaml").open("a") as manifest:
            manifest.write("network: {egress: full}\n")
        command("build", str(tmp_path / "wide"), timeout=300)
        refused = command("start", str(tmp_path / "wide"), ok=(3,))
        assert b"BUGBOX_OPEN_NETWORK=on" in refused.stderr
        command.env["BUGBOX_OPEN_NETWORK"] = "on"
        id = command.start(str(tmp_path / "wide"))
        found = what_is_reached(command, id)
        print(rows(found))
        command.end()
        assert found == documented("slirp, full")


def test_what_the_manifest_asks_for_is_there(machine: tuple[Bugbox, str]) -> None:
    command, id = machine
    assert command.root(id, "getent hosts db.internal").split() == ["10.0.2.100", "db.internal"]
    assert command.root(id, "findmnt -n -o FSTYPE,LABEL /var/spool/app").split() == [
        "ext4",
        "spool",
    ]
    assert command.root(id, "getent passwd learner").strip().endswith(":/bin/dash")
    assert command.root(id, "uname -r").startswith("6.1.0-")
    # That very command, and no other; any arguments where none are given.
    command("shell", id, "--", "sudo", "-n", "true", ok=(1,))
    command("shell", id, "--", "sudo", "-n", "systemctl", "stop", "ssh.service", ok=(1,))
    command("shell", id, "--", "sudo", "-n", "systemctl", "stop", "menu.socket")
    command.root(id, "systemctl start menu.socket")
    assert command("shell", id, "--", "sudo", "-n", "id", "-un").stdout == b"root\n"
    assert command.root(id, "systemctl is-active nftables sysstat").split() == ["active"] * 2


def test_what_processes_alone_change_is_no_file_of_the_machine(
    machine: tuple[Bugbox, str],
) -> None:
    """A check that is served by a new process has changed nothing: /proc has a link for each."""
    command, id = machine
    listed = tree.parse(command.root(id, tree.script().decode(), timeout=120).encode())
    assert b"/etc/hosts" in listed and b"/var/spool/app" in listed
    assert not {b"/proc", b"/sys", b"/dev", b"/run", b"/tmp"} & {*listed}


@pytest.mark.skipif(not ALL, reason="BUGBOX_TEST_ALL=1: another boot")
def test_after_a_reboot_too(machine: tuple[Bugbox, str]) -> None:
    command, id = machine
    asks = ("shell", id, "--root", "--", "cat", "/proc/sys/kernel/random/boot_id")
    before = command(*asks).stdout
    command.root(id, "systemctl reboot", ok=(0, 1, 255))
    deadline = time.monotonic() + 120 * FACTOR
    # On its way down it still answers for a while.
    while (found := command(*asks, ok=(0, 1, 255)).stdout) in (before, b""):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    assert check(command, id)["page"] == FINE


@pytest.mark.skipif(not ALL, reason="BUGBOX_TEST_ALL=1: a template")
def test_a_clone_is_reached_as_well(built: Home, shop: tuple[Bugbox, Path]) -> None:
    _, folder = shop
    text = (folder / "puzzle.yaml").read_text()
    # A machine with further disks is not cloned.
    plain = folder.with_name("plain") / "shop"
    plain.parent.mkdir()
    folder.rename(plain)
    try:
        lines = [line for line in text.splitlines() if not line.startswith("machine:")]
        (plain / "puzzle.yaml").write_text("\n".join(lines) + "\n")
        with borrowing(built) as home:
            command = Bugbox(home, BUGBOX_TEMPLATES="on")
            command("build", str(plain), "--warm", timeout=600 * FACTOR)
            answer = command.json("start", str(plain), timeout=300)
            assert answer["clone"] is True
            found = check(command, answer["id"])
            assert (found["page"], found["bell"], found["name"]) == (FINE, FINE, FINE)
            command.end()
    finally:
        plain.rename(folder)
        (folder / "puzzle.yaml").write_text(text)
