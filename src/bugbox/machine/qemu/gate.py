# SPDX-License-Identifier: Apache-2.0
"""Start a program where it reaches a few addresses and nothing else: `gate JSON PROGRAM ARG…`.

QEMU's user-mode network connects wherever its process can. So that process gets a network
namespace of its own, without any device. The addresses that are allowed are made local ones there,
and each allowed port of them is listened on. Whoever connects is passed on by a second process,
which stayed in the host's network and holds those sockets. Nobody else's packets ever leave: in a
namespace without a device there is no way out, and no rule that could be missing.

    guest ── QEMU, connect(192.0.2.7:443) ─┐ [namespace]        [host's network]
                  listening on 192.0.2.7:443 └── the gate ── connect(192.0.2.7:443)

This process becomes PROGRAM, with the same pid. The gate ends when PROGRAM does, seen by the end
of a socket that only PROGRAM holds. It needs root, or user namespaces.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bugbox.host import libc
from bugbox.machine.qemu.gatekeeper import serve
from bugbox.network.around import is_ours
from bugbox.network.resolver import parse_servers

__all__ = ["Order", "known", "main", "resolved", "routed"]

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_RESOLV = Path("/etc/resolv.conf")
#: Addresses of one goal, those of all, and sockets in all: SCM_RIGHTS takes 253 at once.
_MOST_ADDRESSES, _MOST_GOALS, _MOST_SOCKETS = 8, 184, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is wanted, in one argument."""

    #: "host:port" of each.
    goals: tuple[str, ...]
    #: The addresses of their hosts, and why others have none. They were looked up before: here
    #: somebody waits for what this process becomes.
    found: Mapping[str, Sequence[str]]
    failed: Mapping[str, str]
    #: Any name is answered; otherwise those of the goals.
    names: bool
    #: Addresses of private networks and of this host are goals, too.
    private: bool
    #: Whom the program and the gate run as, when root starts them; None: as now.
    uid: int | None
    groups: tuple[int, ...]

    def as_text(self) -> str:
        """Return the argument."""
        return json.dumps(asdict(self))


def main(argv: Sequence[str]) -> None:
    """Do it; OSError when the host does not allow it."""
    raw = json.loads(argv[0])
    order = Order(**{**raw, "goals": tuple(raw["goals"]), "groups": tuple(raw["groups"])})
    table = resolved(order)
    servers = _name_servers()
    ours, theirs = socket.socketpair()
    _in_the_background(lambda: _be_the_gate(order, theirs, table, servers))
    theirs.close()
    root = os.geteuid() == 0
    _leave_the_network(root)
    _set_up(sorted({address for found in table.values() for address, _ in found} | {*servers}))
    sockets = list(_listening(table, servers))
    listed = json.dumps([(kind, goal) for kind, goal, _ in sockets]).encode()
    socket.send_fds(ours, [listed], [each.fileno() for *_, each in sockets])
    for *_, each in sockets:
        each.close()
    if root:
        _become(order)
    os.set_inheritable(ours.fileno(), True)
    os.execv(argv[1], list(argv[1:]))


def resolved(order: Order) -> dict[str, list[tuple[str, int]]]:
    """Return each goal's name with the addresses and ports that are allowed; there may be none."""
    table: dict[str, list[tuple[str, int]]] = {}
    # Of many goals each has fewer, so that none has nothing.
    most = min(_MOST_ADDRESSES, _MOST_GOALS // max(1, len(order.goals)))
    for goal in order.goals:
        host, _, port = goal.rpartition(":")
        found = table.setdefault(host.lower(), [])
        addresses = order.found.get(host, ())
        if not addresses:
            _say(f"{host}: {order.failed.get(host, 'not looked up')}: left out")
        if len(addresses) > most:
            _say(f"{goal} has {len(addresses)} addresses: all but {most} are left out")
        for address in addresses[:most]:
            where = IPv4Address(address)
            public = where.is_global and not is_ours(where)
            if order.private or public:
                found.append((address, int(port)))
            else:
                _say(f"{goal} is {address}, of this host or a private network: left out")
    return table


def _name_servers() -> list[str]:
    """Return the host's IPv4 name servers; slirp asks the first of them."""
    try:
        return [*map(str, parse_servers(_RESOLV.read_text(errors="replace")))]
    except OSError:
        return []


def _in_the_background(work: object) -> None:
    """Run `work` in a process that is no child of ours: what we become waits for nobody."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            try:
                work()  # type: ignore[operator]
            finally:
                os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)


def _be_the_gate(
    order: Order,
    control: socket.socket,
    table: dict[str, list[tuple[str, int]]],
    servers: list[str],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The machine's disks and sockets are none of ours.
    keep = control.fileno()
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    if os.geteuid() == 0:
        _become(order)
    listed, fds, *_ = socket.recv_fds(control, 1 << 16, _MOST_SOCKETS)
    given = [
        (kind, goal, socket.socket(fileno=fd))
        for (kind, goal), fd in zip(json.loads(listed), fds, strict=True)
    ]
    serve(control, given, None if order.names else known(table), servers)


def known(table: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, list[str]]:
    """Return what the guest is told of each name: an address once, however many its ports."""
    return {
        host: list(dict.fromkeys(address for address, _ in found)) for host, found in table.items()
    }


def _become(order: Order) -> None:
    if order.uid is not None:
        os.setgroups(order.groups)
        os.setresgid(order.uid, order.uid, order.uid)
        os.setresuid(order.uid, order.uid, order.uid)


def _leave_the_network(root: bool) -> None:
    if root:
        libc.new_network()
        return
    uid, gid = os.geteuid(), os.getegid()
    libc.new_network(user=True)
    # The same ids inside as outside: files, and what others see of the process, stay as they are.
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)


def _set_up(addresses: Sequence[str]) -> None:
    """Bring lo up and make each address a local one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for address in addresses:
            if not IPv4Address(address).is_loopback:
                netlink.send(routed(address))
                number = struct.unpack_from("i", netlink.recv(4096), 16)[0]
                if number:
                    raise OSError(-number, os.strerror(-number), address)


def routed(address: str) -> bytes:
    """Return the message that makes an address local: RTM_NEWROUTE of rtnetlink(7)."""
    table_local, protocol_boot, scope_host, type_local, loopback = 255, 3, 254, 2, 1
    body = struct.pack(
        "BBBBBBBBI", socket.AF_INET, 32, 0, 0, table_local, protocol_boot, scope_host, type_local, 0
    )
    body += struct.pack("HH4s", 8, 1, socket.inet_aton(address))  # RTA_DST
    body += struct.pack("HHi", 8, 4, loopback)  # RTA_OIF
    new_route, request_create_and_say = 24, 0x1 | 0x4 | 0x400
    return struct.pack("IHHII", 16 + len(body), new_route, request_create_and_say, 1, 0) + body


def _listening(
    table: dict[str, list[tuple[str, int]]], servers: Sequence[str]
) -> Iterator[tuple[str, tuple[str, int], socket.socket]]:
    """Yield (kind, address, socket): each goal, and each address that names are asked of."""
    goals = dict.fromkeys(goal for found in table.values() for goal in found)
    for goal in goals:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(goal)
        server.listen(64)
        yield "tcp", goal, server
    for address in dict.fromkeys([*servers[:8], "127.0.0.1"]):
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        names.bind((address, 53))
        yield "names", (address, 53), names


def _say(text: str) -> None:
    sys.stderr.write(f"bugbox gate: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        _say(f"no network of its own for a machine here: {error}")
        os._exit(1)
