# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the world around a host, and a guest without a machine: a kernel behind a tap."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bugbox.network import namespace, tap
from bugbox.network.net import Net
from bugbox.network.netlink import opened
from tests.isolation import Server, serve

PORT = 8000
#: The network that host and world are on; public, so that only being a neighbour closes it.
HOST_END, WORLD_END = "203.0.113.1", "203.0.113.2"
RESOLVER = "10.99.99.53"
ADDRESSES = {
    "metadata": "169.254.169.254",
    "private10": "10.99.99.9",
    "private172": "172.20.99.9",
    "private192": "192.168.77.9",
    "private100": "100.64.99.9",
    "neighbour": WORLD_END,
    "internet": "198.51.100.7",
}


def network_reason() -> str:
    """Why networks cannot be made here; empty: they can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("nft", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        return "needs nft (apt-get install nftables)"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    done = subprocess.run(
        ["nft", "-c", "add table inet bugboxprobe"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return f"this kernel has no nftables: {done.stderr.strip()}"
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
        return "needs net.ipv4.ip_forward=1"
    return ""


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def snapshot() -> str:
    """All that there is of networks on this host, as people see it."""
    words = ("ip -o link", "ip -o addr", "ip route", "ip netns", "nft list ruleset")
    texts = []
    for word in words:
        done = subprocess.run(word.split(), capture_output=True, text=True, timeout=60, check=True)
        # What moves by itself: an address is tentative for a second, or leased for so many.
        steady = re.sub(r" tentative|(valid|preferred)_lft \S+", "", done.stdout)
        texts.append(f"# {word}\n{steady}")
    # Lifetimes and queue states of strangers move by themselves.
    return "\n".join(texts)


def host_address() -> str:
    """This host's own address, on its way to the world."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect((ADDRESSES["internet"], 9))
        return str(link.getsockname()[0])


def get(address: str, port: int, timeout: float = 2.0) -> bool:
    """Whether the stand-in there answers with what it alone says."""
    try:
        with socket.create_connection((address, port), timeout=timeout) as link:
            link.sendall(b"GET /seen HTTP/1.0\r\n\r\n")
            said = b""
            while part := link.recv(4096):
                said += part
    except OSError:
        return False
    return said.endswith(b"stand-in")


def look_up(server: str, timeout: float = 2.0) -> bool:
    """Whether a question for a name, sent to `server` over UDP, is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(timeout)
        try:
            link.sendto(b"question", (server, 53))
            return link.recvfrom(512)[0] == b"answer to question"
        except OSError:
            return False


@dataclass
class World:
    """Other networks, in a namespace of their own, with real servers."""

    servers: dict[str, Server] = field(default_factory=dict)


@contextmanager
def world(name: str) -> Iterator[World]:
    """Put the stand-ins behind an interface of this host, with routes to them."""
    made = World()
    with ExitStack() as undo:
        namespace.create(name)
        undo.callback(namespace.remove, name)
        ip("link", "add", "worldveth", "type", "veth", "peer", "name", "hostveth", "netns", name)
        undo.callback(lambda: ip("link", "del", "worldveth"))
        ip("addr", "add", f"{HOST_END}/30", "dev", "worldveth")
        ip("link", "set", "worldveth", "up")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "addr", "add", f"{WORLD_END}/30", "dev", "hostveth")
        ip("-n", name, "link", "set", "hostveth", "up")
        ip("-n", name, "route", "add", "default", "via", HOST_END)
        for address in {RESOLVER, *ADDRESSES.values()} - {WORLD_END}:
            ip("-n", name, "addr", "add", f"{address}/32", "dev", "lo")
            ip("route", "add", f"{address}/32", "via", WORLD_END)

        def start() -> None:
            for row, address in ADDRESSES.items():
                made.servers[row] = serve(address, PORT)
                undo.callback(made.servers[row].close)

        namespace.inside(name, start)
        undo.enter_context(_name_server(name))
        yield made


@contextmanager
def _name_server(name: str) -> Iterator[None]:
    link = namespace.inside(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    link.bind((RESOLVER, 53))
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            if select.select([link], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    question, asker = link.recvfrom(512)
                    link.sendto(b"answer to " + question, asker)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        link.close()


class Guest:
    """A network stack of its own that has nothing but what comes through a machine's tap."""

    def __init__(self, net: Net, name: str) -> None:
        self.net = net
        self.name = name

    def do(self, work: Callable[[], bool]) -> bool:
        return namespace.inside(self.name, work)

    def _try(self, address: str, port: int) -> bool:
        return self.do(lambda: look_up(address) if port == 53 else get(address, port))

    def reach(self, goals: dict[str, tuple[str, int]]) -> dict[str, bool]:
        """Try all at once."""
        with ThreadPoolExecutor(len(goals)) as pool:
            tried = {row: pool.submit(self._try, *goal) for row, goal in goals.items()}
            return {row: each.result() for row, each in tried.items()}


@contextmanager
def guest(net: Net, name: str, *, address: bool = True) -> Iterator[Guest]:
    """Play the guest of `net`: its VMM is two threads that carry frames."""
    with ExitStack() as undo:
        namespace.create(name)
        undo.callback(namespace.remove, name)
        theirs = namespace.inside(net.name, lambda: _open_tap(net.tap))
        undo.callback(os.close, theirs)
        ours = namespace.inside(name, lambda: _open_tap("eth0"))
        undo.callback(os.close, ours)

        def furnish() -> None:
            with opened() as routes:
                routes.bring_up("lo")
                routes.bring_up("eth0", mtu=net.mtu, mac=net.mac)
                if address:
                    routes.add_address("eth0", net.guest_address, net.prefix)
                    routes.add_default_route(net.gateway)

        namespace.inside(name, furnish)
        ended = threading.Event()
        thread = threading.Thread(target=_carry, args=(theirs, ours, ended))
        thread.start()
        undo.callback(thread.join)
        undo.callback(ended.set)
        yield Guest(net, name)


def _open_tap(name: str) -> int:
    fd = os.open(tap.DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
    return fd


def _carry(one: int, other: int, ended: threading.Event) -> None:
    ends = {one: other, other: one}
    while not ended.is_set():
        for fd in select.select([one, other], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                os.write(ends[fd], os.read(fd, 65536))
