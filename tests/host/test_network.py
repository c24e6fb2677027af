# SPDX-License-Identifier: Apache-2.0
"""Networks of machines on this very host: what a guest reaches, and what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from bugbox.config import Settings
from bugbox.errors import HostError, MissingTool, OutOfResources
from bugbox.host.lease import tag
from bugbox.network import namespace
from bugbox.network.firewall import Egress
from bugbox.network.net import Net, Network
from bugbox.paths import Home
from bugbox.session.reaper import collect, give_back
from bugbox.session.record import claim, load
from bugbox.session.wires import connect, tell_address
from tests.host.wires_world import (
    ADDRESSES,
    PORT,
    RESOLVER,
    World,
    get,
    guest,
    host_address,
    ip,
    look_up,
    network_reason,
    snapshot,
    world,
)
from tests.isolation import documented, rows, serve

POOL = "10.213.64.0/20"
NAME = f"bbtest{os.getpid()}"


pytestmark = [pytest.mark.host, pytest.mark.skipif(bool(network_reason()), reason=network_reason())]

ALL = bool(os.environ.get("BUGBOX_TEST_ALL"))
FULL = Egress(dns=True, full=True)


@pytest.fixture(scope="module")
def around() -> Iterator[World]:
    before = snapshot()
    with world(f"{NAME}world") as made:
        yield made
    assert snapshot() == before


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    before = snapshot()
    made = Network(tmp_path / "leases", pool=POOL, dns=RESOLVER)
    yield made
    after = snapshot()
    # A test that failed in the middle is no reason to leave anything on this host.
    shutil.rmtree(tmp_path / "sessions", ignore_errors=True)
    made.sweep()
    assert after == before, "something was left on this host"


def owner(folder: Path, name: str = "one") -> Path:
    place = folder / "sessions" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


@pytest.mark.parametrize(
    ("column", "egress"),
    [
        ("own, none", Egress()),
        ("own, dns", Egress(dns=True)),
        ("own, full", FULL),
    ],
    ids=["none", "dns", "full"],
)
def test_the_isolation_table(
    network: Network, around: World, tmp_path: Path, column: str, egress: Egress
) -> None:
    """Real servers, each of which the host itself reaches; and what a guest reaches of them."""
    at_home = serve("0.0.0.0", 0)
    goals = {row: (address, PORT) for row, address in ADDRESSES.items()}
    assert all(get(*goal) for goal in goals.values()), "the host reaches every stand-in"
    with (
        network.connected(owner(tmp_path), egress) as net,
        network.connected(owner(tmp_path, "two"), FULL) as other,
        guest(net, f"{NAME}g1") as first,
        guest(other, f"{NAME}g2") as second,
    ):
        theirs = namespace.inside(second.name, lambda: serve(str(other.guest_address), PORT))
        other = network.publish(owner(tmp_path, "two"), [PORT])
        assert get(*other.address_of(PORT)), "the other guest does serve, for the host"
        goals |= {
            "loopback": (str(net.gateway), at_home.port),
            "host": (host_address(), at_home.port),
            "link": (str(net.link.host), at_home.port),
            "guest": (str(other.link.machine), PORT),
            "names": (str(net.dns), 53),
        }
        seen = {row: len(server.asked) for row, server in around.servers.items()}
        beside = {"their link": (str(other.link.host), at_home.port), "resolver": (RESOLVER, 53)}
        found: dict[str, bool | None] = {**first.reach(goals | beside)}
        assert not found.pop("their link")
        assert found.pop("resolver") == egress.any, "the one server may be asked itself, too"
        assert [each for each in theirs.asked if net.link.machine.exploded in each] == []
        theirs.close()
    for row, server in around.servers.items():
        assert (len(server.asked) > seen[row]) == found[row], "the server says so too"
    assert at_home.asked == []
    at_home.close()
    print(f"\n{column}\n{rows(found)}")
    assert found == documented(column)


def test_goals_are_reached_and_nothing_beside_them(
    network: Network, around: World, tmp_path: Path
) -> None:
    goals = Egress(dns=True, goals=((IPv4Address(ADDRESSES["internet"]), PORT),))
    with network.connected(owner(tmp_path), goals) as net, guest(net, f"{NAME}g1") as one:
        assert one.do(lambda: get(ADDRESSES["internet"], PORT))
        assert one.do(lambda: look_up(str(net.dns)))
        assert not one.do(lambda: get(ADDRESSES["private10"], PORT))
        elsewhere = namespace.inside(f"{NAME}world", lambda: serve(ADDRESSES["internet"], PORT + 1))
        assert get(ADDRESSES["internet"], PORT + 1)
        assert not one.do(lambda: get(ADDRESSES["internet"], PORT + 1)), "another port"
        elsewhere.close()


def test_the_host_reaches_published_ports_alone(network: Network, tmp_path: Path) -> None:
    with (
        network.connected(owner(tmp_path), Egress(), published=[80]) as net,
        guest(net, f"{NAME}g1") as one,
    ):
        servers = namespace.inside(
            one.name, lambda: [serve(str(net.guest_address), port) for port in (80, 81)]
        )
        assert get(*net.address_of(80))
        assert not get(str(net.link.machine), 81, timeout=1)
        assert servers[0].asked == [f"{net.gateway} /seen"] and servers[1].asked == []
        # Who is not root reaches none: the forwarding is bugbox's to do.
        asked = f"import socket; socket.create_connection({net.address_of(80)!r}, timeout=1)"
        done = subprocess.run(
            [sys.executable, "-c", asked], user=65534, capture_output=True, check=False
        )
        assert done.returncode != 0 and len(servers[0].asked) == 1
        for server in servers:
            server.close()


def test_what_a_guest_is_given(network: Network, tmp_path: Path) -> None:
    """The same inside each; no IPv6; packets no larger than the way out takes."""
    with (
        network.connected(owner(tmp_path), FULL, uid=4242) as one,
        network.connected(owner(tmp_path, "two"), FULL) as two,
    ):
        assert (one.tap, one.guest_address, one.mac) == (two.tap, two.guest_address, two.mac)
        assert one.netns != two.netns and one.link != two.link
        assert ip("-n", one.name, "-6", "addr") == ""
        shown = ip("-n", one.name, "-d", "link", "show", one.tap)
        assert f"mtu {one.mtu} " in shown and "user 4242" in shown and "persist on" in shown
        assert network.find(owner(tmp_path)) == one
        one.require_tap()
        ip("-n", one.name, "link", "del", one.tap)
        with pytest.raises(HostError, match="the tap tap0 is gone"):
            one.require_tap()
    assert network.find(owner(tmp_path)) is None


def test_what_others_made_stays_byte_for_byte(network: Network, tmp_path: Path) -> None:
    """A table of somebody else's, with a name like ours, while ours comes and goes."""
    theirs = """
        table ip bugbox {
            chain mine {
                type filter hook forward priority 5; policy accept;
                ip saddr 192.0.2.77 counter drop comment "not yours"
            }
        }
        table inet bbstranger {
            set s {
                type ipv4_addr
                elements = { 192.0.2.8 }
            }
        }
    """
    subprocess.run(["nft", "-f", "-"], input=theirs, text=True, check=True)
    ip("link", "add", "bb0123456789", "type", "veth", "peer", "name", "strange0")

    def listed() -> bytes:
        tables = [["list", "table", "ip", "bugbox"], ["list", "table", "inet", "bbstranger"]]
        return b"".join(subprocess.check_output(["nft", *table]) for table in tables)

    try:
        before = listed()
        with network.connected(owner(tmp_path), FULL):
            assert listed() == before
        shutil.rmtree(owner(tmp_path))
        network.sweep()
        assert listed() == before
        assert "strange0" in ip("link", "show", "bb0123456789")
    finally:
        ip("link", "del", "bb0123456789")
        subprocess.run(["nft", "delete table ip bugbox"], check=True)
        subprocess.run(["nft", "delete table inet bbstranger"], check=True)


def test_giving_back_twice_is_fine(network: Network, tmp_path: Path) -> None:
    place = owner(tmp_path)
    network.connect(place, FULL)
    network.give_back(place)
    network.give_back(place)
    network.connect(place, FULL)
    ip("netns", "del", f"bugbox-{tag(place)}")
    network.give_back(place)
    network.connect(place, FULL)
    network.connect(place, Egress())  # once more, over what is there
    subprocess.run(["nft", "delete table inet bugbox"], check=True)
    network.give_back(place)


def test_a_full_pool_says_so_and_a_stale_lease_makes_room(tmp_path: Path) -> None:
    before = snapshot()
    small = Network(tmp_path / "leases", pool="10.213.64.0/29", dns=RESOLVER)
    first, second, third = (owner(tmp_path, name) for name in ("one", "two", "three"))
    small.connect(first, Egress())
    small.connect(second, Egress())
    with pytest.raises(OutOfResources, match="all 2 network links of bugbox are in use") as full:
        small.connect(third, Egress())
    assert "network_pool" in str(full.value.hint)
    shutil.rmtree(first)
    kept = small.connect(third, Egress())
    assert f"bugbox-{tag(first)}" not in ip("netns")
    with pytest.raises(HostError, match=r"machines still run with 10\.213\.64\.0/29"):
        Network(tmp_path / "leases", pool=POOL, dns=RESOLVER).connect(first.parent, Egress())
    shutil.rmtree(second)
    assert small.sweep() == ["network of two"]
    kept.require_tap()
    small.give_back(third)
    assert snapshot() == before


def test_a_namespace_that_no_lease_knows(network: Network, tmp_path: Path) -> None:
    """The file of leases is lost: what nobody is in goes, what somebody is in stays."""
    net = network.connect(owner(tmp_path), Egress())
    other = network.connect(owner(tmp_path, "two"), Egress())
    (tmp_path / "leases/network links.json").unlink()
    inside = ["nsenter", f"--net={net.netns}", "sleep", "600"]
    with subprocess.Popen(inside) as sleeper:
        try:
            while sleeper.pid not in namespace.users(net.name):
                assert sleeper.poll() is None
            assert network.sweep() == [f"network namespace {other.name}"]
        finally:
            sleeper.kill()
    assert network.sweep() == [f"network namespace {net.name}"]


#: Runs `connect`, or `give_back`, and dies at the N-th thing that it does to the host.
KILLED = """
import os, signal, sys
from pathlib import Path
from bugbox.host import libc, proc
from bugbox.host.lease import Leases
from bugbox.network import namespace, net, netlink, tap
from bugbox.network.firewall import Egress

leases, owner, dns, pool, verb, at, when = sys.argv[1:]
count = 0

def deadly(holder, name):
    real = getattr(holder, name)
    def call(*args, **options):
        global count
        count += 1
        if count == int(at) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if count == int(at) and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(holder, name, call)

network = net.Network(Path(leases), pool=pool, dns=dns)
egress = Egress(dns=True, full=True)
if verb == "give_back":
    network.connect(Path(owner), egress)
for holder, names in (
    (libc, "new_network bind_mount unmount"),
    (proc, "run"),
    (tap, "make"),
    (Leases, "write"),
    (netlink.Routes, "add_veth set_alias move bring_up add_address add_default_route delete"),
):
    for each in names.split():
        deadly(holder, each)
if verb == "connect":
    network.connect(Path(owner), egress)
else:
    network.give_back(Path(owner))
print(count)
"""


def killed(network: Network, folder: Path, verb: str, at: int, when: str) -> int:
    """Return how it ended: -9, or 0 when it does fewer things than that."""
    place = owner(folder, f"{verb}{at}{when}")
    argv = [str(folder / "leases"), str(place), RESOLVER, POOL, verb, str(at), when]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -9), done.stderr
    shutil.rmtree(place)  # the reaper has done the rest of the session
    network.sweep()
    return done.returncode


@pytest.mark.parametrize("verb", ["connect", "give_back"])
def test_killed_at_each_step_nothing_is_left(network: Network, tmp_path: Path, verb: str) -> None:
    before = snapshot()
    steps = 0
    for at in range(1, 60):
        ended = killed(network, tmp_path, verb, at, "before")
        assert snapshot() == before, f"{verb}, killed before step {at}"
        if ended == 0:
            break
        if ALL:
            assert killed(network, tmp_path, verb, at, "after") == -9
            assert snapshot() == before, f"{verb}, killed after step {at}"
        steps += 1
    assert steps >= (15 if verb == "connect" else 4)


def test_without_nft(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bugbox.host.proc._PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="nft is not installed") as missing:
        network.connect(owner(tmp_path), Egress())
    assert missing.value.hint == "apt-get install nftables"


def test_a_pool_that_the_host_is_on(around: World, tmp_path: Path) -> None:
    ip("addr", "add", "10.213.64.1/24", "dev", "worldveth")
    try:
        taken = Network(tmp_path / "leases", pool=POOL, dns=RESOLVER)
        with pytest.raises(HostError, match=r"this host is on 10\.213\.64\.0/24") as refused:
            taken.connect(owner(tmp_path), Egress())
        assert "BUGBOX_NETWORK_POOL" in str(refused.value.hint)
    finally:
        ip("addr", "del", "10.213.64.1/24", "dev", "worldveth")


def test_the_kernel_refuses_in_the_middle(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device of taps is missing: an error that says so, and nothing left."""
    monkeypatch.setattr("bugbox.network.tap.DEVICE", tmp_path / "no-tun")
    with pytest.raises(HostError, match="no-tun"):
        network.connect(owner(tmp_path), FULL)


@pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox's udhcpc")
def test_a_guest_is_told_its_address(network: Network, tmp_path: Path) -> None:
    """By a real client, through the tap, and through the rules of the namespace."""
    script = tmp_path / "told"
    script.write_text('#!/bin/sh\n[ "$1" != bound ] || echo "$ip $mask $router $dns $mtu"\n')
    script.chmod(0o755)

    async def ask(net: Net, name: str) -> str:
        argv = ["nsenter", f"--net={namespace.path(name)}", "busybox", "udhcpc", "-i", "eth0"]
        argv += ["-f", "-q", "-n", "-t", "20", "-T", "1", "-O", "mtu", "-s", str(script)]
        teller = asyncio.create_task(tell_address(net))
        try:
            client = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
            said, _ = await client.communicate()
        finally:
            teller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await teller
        return said.decode().strip()

    with (
        network.connected(owner(tmp_path), Egress()) as net,
        guest(net, f"{NAME}g1", address=False) as one,
    ):
        assert asyncio.run(ask(net, one.name)) == f"10.0.2.15 24 10.0.2.2 10.0.2.3 {net.mtu}"


@pytest.mark.parametrize("way", ["give_back", "gc"])
def test_a_session_gives_its_network_back(tmp_path: Path, way: str) -> None:
    """From its record, which says so before it is taken; by its owner, or by gc after a death."""
    before = snapshot()
    ledger = claim(Home(tmp_path), "wired")
    net = connect(ledger, Settings(network_dns=RESOLVER), "full", published=[80])
    assert load(Home(tmp_path), ledger.record.id).holds == ("network",)
    net.require_tap()
    if way == "give_back":
        give_back(ledger)
    else:
        ledger.close()
        assert collect(Home(tmp_path)) == [ledger.record.id]
    assert snapshot() == before
    shutil.rmtree(Home(tmp_path).runtime)


def test_gc_takes_back_what_a_lost_folder_had(tmp_path: Path) -> None:
    before = snapshot()
    home = Home(tmp_path)
    ledger = claim(home, "wired")
    connect(ledger, Settings(network_dns=RESOLVER), "none")
    ledger.close()
    shutil.rmtree(ledger.paths.root)
    env = {**os.environ, "BUGBOX_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "bugbox", "gc"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Leases are the host's: the gc of another state directory may have been the quicker one.
    words = f"removed network of {ledger.record.id}\n", "nothing was left behind\n"
    assert done.stdout + done.stderr in words
    assert snapshot() == before
    shutil.rmtree(home.runtime)


AT_ONCE = """
import sys
from pathlib import Path
from bugbox.network.firewall import Egress
from bugbox.network.net import Network

leases, pool, dns, *owners = sys.argv[1:]
network = Network(Path(leases), pool=pool, dns=dns)
for owner in owners:
    network.connect(Path(owner), Egress(dns=True, full=True)).require_tap()
sys.stdout.write("up\\n")
sys.stdout.flush()
sys.stdin.readline()
for owner in owners:
    network.give_back(Path(owner))
"""


def test_many_at_once(network: Network, tmp_path: Path) -> None:
    """Processes that know nothing of each other make and take back networks side by side."""
    argv = [sys.executable, "-c", AT_ONCE, str(tmp_path / "leases"), POOL, RESOLVER]
    owners = [[str(owner(tmp_path, f"{n}-{m}")) for m in range(4)] for n in range(4)]
    makers = [
        subprocess.Popen([*argv, *some], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for some in owners
    ]
    for maker in makers:
        assert maker.stdout is not None and maker.stdout.readline() == "up\n"
    rules = subprocess.check_output(["nft", "list", "set", "inet", "bugbox", "machines"], text=True)
    made = [network.find(Path(each)) for some in owners for each in some]
    assert all(net is not None and f'"{net.host_end}"' in rules for net in made)
    assert len({net.link for net in made if net is not None}) == 16
    for maker in makers:
        maker.communicate("\n", timeout=120)
        assert maker.returncode == 0


def test_a_host_that_passes_nothing_on(network: Network, tmp_path: Path) -> None:
    """Said before anything is taken; without egress nobody minds."""
    namespace.create(f"{NAME}shut")
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    try:
        namespace.inside(f"{NAME}shut", lambda: switch.write_text("0"))
        with pytest.raises(HostError, match="passes no packets on") as refused:
            namespace.inside(f"{NAME}shut", lambda: network.connect(owner(tmp_path), FULL))
        assert refused.value.hint == "as root: sysctl -w net.ipv4.ip_forward=1"
        namespace.inside(f"{NAME}shut", lambda: network.connect(owner(tmp_path), Egress()))
        namespace.inside(f"{NAME}shut", lambda: network.give_back(owner(tmp_path)))
    finally:
        namespace.remove(f"{NAME}shut")
