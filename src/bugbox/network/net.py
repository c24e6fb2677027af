# SPDX-License-Identifier: Apache-2.0
"""A machine's network: a namespace of its own with a tap in it, and a link with the host.

    guest 10.0.2.15 ── tap0 10.0.2.2 [namespace bugbox-TAG] uplink .2 ── .1 bbTAG [host]

Inside every namespace names and addresses are the same, so a clone needs none of its own. Outside,
a lease gives each machine a /30; its facts are all that the host's rules are made of. What is taken
is found by names made of the lease's owner: whatever `kill -9` leaves, `give_back` and `sweep`
find. Rules come first and go last, so that no link is ever without them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from bugbox.errors import CommandFailed, HostError, UserError
from bugbox.host import proc
from bugbox.host.lease import Book, Lease, Leases, tag
from bugbox.network import namespace, subnet, tap
from bugbox.network.around import HOST_END, Place, is_ours, routes
from bugbox.network.firewall import TAP, UPLINK, Egress, Wired, host_rules, machine_rules
from bugbox.network.netlink import opened
from bugbox.network.resolver import choose

__all__ = ["POOL", "Net", "Network"]

#: What `network_pool` is when nobody says.
POOL = "10.213.0.0/16"
_NFT_TIMEOUT = 30.0
_KIND = "network links"
_MTU = 1500
_NAMESPACE = "bugbox-"
#: Of the namespace, and 1 to be on: it passes packets on, and speaks no IPv6.
_SWITCHES = (
    "ipv4/ip_forward",
    "ipv6/conf/all/disable_ipv6",
    "ipv6/conf/default/disable_ipv6",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A machine's network, as its VMM and its guest see it."""

    name: str
    link: subnet.Link
    mtu: int
    egress: Egress
    published: tuple[int, ...] = ()
    tap: str = TAP
    mac: str = subnet.GUEST_MAC
    guest_address: IPv4Address = subnet.GUEST
    gateway: IPv4Address = subnet.GATEWAY
    dns: IPv4Address = subnet.DNS
    prefix: int = subnet.INSIDE.prefixlen

    @property
    def netns(self) -> Path:
        """The namespace that the VMM has to run in."""
        return namespace.path(self.name)

    @property
    def host_end(self) -> str:
        """The host's end of the link."""
        return f"bb{self.name.removeprefix(_NAMESPACE)}"

    def require_tap(self) -> None:
        """HostError unless the tap is there: Firecracker would make one that leads nowhere."""
        namespace.inside(self.name, lambda: tap.require(self.tap))

    def address_of(self, port: int) -> tuple[str, int]:
        """Where on this host a published port of the guest is reached, by root alone."""
        if port not in self.published:
            raise UserError(f"port {port} of the machine is not published")
        return str(self.link.machine), port


class Network:
    """This host's side: who has which link, and the rules that follow from it."""

    def __init__(self, leases: Path, *, pool: str = POOL, dns: str = "auto") -> None:
        self._pool = subnet.parse_pool(pool)
        self._dns = dns
        self._leases = Leases(leases, _KIND, subnet.size(self._pool))
        # Written on the host's end of a link: whose list of leases it is in.
        self._mark = f"bugbox {leases}"

    def connect(
        self,
        owner: Path,
        egress: Egress,
        *,
        published: Iterable[int] = (),
        uid: int | None = None,
    ) -> Net:
        """Make the network of the session whose folder is `owner`; on failure nothing is left.

        `uid` is the user who may open the tap. MissingTool without nft, OutOfResources when the
        pool is full, HostError for what this host does not do.
        """
        proc.find("nft")
        place = routes()
        self._check(egress, place)
        resolver = choose(self._dns, is_ours) if egress.any else None
        facts = {
            **egress.as_facts(),
            "pool": str(self._pool),
            "mtu": _mtu(place),
            "resolver": str(resolver or ""),
            "published": sorted(set(published)),
        }
        self.give_back(owner)
        net = _net(self._take(owner, facts))
        try:
            _make(net, uid, self._mark)
        except BaseException:
            self.give_back(owner)
            raise
        return net

    def find(self, owner: Path) -> Net | None:
        """Return the network that `owner` has, or None: for who takes over a session."""
        with self._leases.locked() as book:
            lease = book.of(owner)
        return None if lease is None else _net(lease)

    @contextmanager
    def connected(
        self,
        owner: Path,
        egress: Egress,
        *,
        published: Iterable[int] = (),
        uid: int | None = None,
    ) -> Iterator[Net]:
        """Have a network for the time of the block."""
        net = self.connect(owner, egress, published=published, uid=uid)
        try:
            yield net
        finally:
            self.give_back(owner)

    def publish(self, owner: Path, ports: Iterable[int]) -> Net:
        """Let the host reach these ports of the guest, and no others."""
        with self._leases.locked() as book:
            lease = book.of(owner)
            if lease is None:
                raise HostError(f"{owner.name} has no network")
            facts = {**lease.facts, "published": sorted(set(ports))}
            net = _net(book.take(owner, self._leases.size, facts) or lease)
            rules = machine_rules(net.link, net.egress, net.published)
            namespace.inside(net.name, lambda: _nft(rules))
        return net

    def give_back(self, owner: Path) -> None:
        """Take back all that `owner` has; nothing to take back is fine."""
        with self._leases.locked() as book:
            if book.of(owner) is not None:
                self._end(book, owner)

    def sweep(self) -> list[str]:
        """Take back what belongs to sessions that are gone; return what was removed.

        What no lease knows, though it has our mark, goes too, unless a process is in it.
        """
        removed = []
        with self._leases.locked() as book:
            for lease in book.all():
                if lease.stale:
                    self._end(book, lease.owner)
                    removed.append(f"network of {lease.owner.name}")
            known = {_NAMESPACE + tag(lease.owner) for lease in book.all()}
            for name in self._marked():
                if name not in known and not namespace.users(name):
                    _unmake(name, self._mark)
                    removed.append(f"network namespace {name}")
            if removed:
                self._apply(book)
        return removed

    def _marked(self) -> list[str]:
        if not namespace.names(_NAMESPACE):
            return []
        with opened() as kernel:
            marked = [each.name for each in kernel.interfaces() if each.alias == self._mark]
        return [_NAMESPACE + name.removeprefix("bb") for name in marked if HOST_END.fullmatch(name)]

    def _check(self, egress: Egress, place: Place) -> None:
        other = subnet.clash(self._pool, place.networks)
        if other is not None:
            raise HostError(
                f"this host is on {other}, and network_pool is {self._pool}",
                hint="BUGBOX_NETWORK_POOL=NETWORK names another part of 10.0.0.0/8",
            )
        if egress.any and Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
            raise HostError(
                "this host passes no packets on, so a machine would not get out",
                hint="as root: sysctl -w net.ipv4.ip_forward=1",
            )

    def _take(self, owner: Path, facts: dict[str, Any]) -> Lease:
        with self._leases.locked() as book:
            lease = book.take(owner, self._leases.size, facts)
            if lease is None:
                for each in book.all():
                    if each.stale:
                        self._end(book, each.owner)
                lease = book.take(owner, self._leases.size, facts)
            if lease is None:
                raise self._leases.full(
                    f"stop a machine, run bugbox gc, or set a network_pool larger than {self._pool}"
                )
            self._check_pools(book)
            # On disk first; then the rules; then what they are for.
            self._leases.write(book)
            try:
                self._apply(book)
            except BaseException:
                book.end(owner)
                self._leases.write(book)
                raise
            return lease

    def _check_pools(self, book: Book) -> None:
        """Numbers of two pools could mean the same addresses."""
        others = {str(each.facts.get("pool")) for each in book.all()} - {str(self._pool)}
        if others:
            raise HostError(
                f"network_pool is {self._pool}, and machines still run with {', '.join(others)}",
                hint="stop them first, or run bugbox gc",
            )

    def _end(self, book: Book, owner: Path) -> None:
        _unmake(_NAMESPACE + tag(owner), self._mark)
        book.end(owner)
        try:
            self._apply(book)
        except BaseException:
            # Nothing that the rules are for is left, and the next ones replace them all. With the
            # lease still there, whoever has it could not be given back while nft does not work.
            self._leases.write(book)
            raise

    def _apply(self, book: Book) -> None:
        """Make the host's rules what the leases say."""
        machines = [_wired(lease) for lease in book.all()]
        _nft(host_rules(machines, around=routes().networks))


def _link(lease: Lease) -> subnet.Link:
    return subnet.link(IPv4Network(str(lease.facts["pool"])), lease.number)


def _net(lease: Lease) -> Net:
    return Net(
        name=_NAMESPACE + tag(lease.owner),
        link=_link(lease),
        mtu=int(lease.facts["mtu"]),
        egress=Egress.from_facts(dict(lease.facts)),
        published=tuple(lease.facts["published"]),
    )


def _wired(lease: Lease) -> Wired:
    resolver = str(lease.facts["resolver"])
    return Wired(
        name=f"bb{tag(lease.owner)}",
        link=_link(lease),
        egress=Egress.from_facts(dict(lease.facts)),
        resolver=IPv4Address(resolver) if resolver else None,
    )


def _mtu(place: Place) -> int:
    """Return the largest packet that takes the host's way out."""
    with opened() as kernel:
        uplink = kernel.find(place.uplink) if place.uplink else None
    return min(_MTU, uplink.mtu) if uplink else _MTU


def _make(net: Net, uid: int | None, mark: str) -> None:
    """Make the namespace and all in it, then give the host its end of the link."""
    namespace.create(net.name)
    # A machine's end says whose it is before the host sees it, and goes with the namespace.
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespace.inside(net.name, lambda: _furnish(net, uid, home, mark))
    finally:
        os.close(home)
    with opened() as kernel:
        kernel.add_address(net.host_end, net.link.host, net.link.prefix)
        kernel.bring_up(net.host_end)
    net.require_tap()


def _furnish(net: Net, uid: int | None, home: int, mark: str) -> None:
    for switch in _SWITCHES:
        # A kernel without IPv6 has no switch to turn it off.
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys/net", switch).write_text("1")
    _nft(machine_rules(net.link, net.egress, net.published))
    tap.make(net.tap, uid)
    with opened() as kernel:
        kernel.bring_up("lo")
        kernel.bring_up(net.tap, mtu=net.mtu, mac=subnet.TAP_MAC)
        kernel.add_address(net.tap, net.gateway, net.prefix)
        kernel.add_address(net.tap, net.dns, 32)
        kernel.add_veth(UPLINK, net.host_end, mtu=net.mtu)
        kernel.set_alias(net.host_end, mark)
        kernel.add_address(UPLINK, net.link.machine, net.link.prefix)
        kernel.bring_up(UPLINK)
        kernel.move(net.host_end, home)
        kernel.add_default_route(net.link.host)


def _unmake(name: str, mark: str) -> None:
    """Remove the link, then the namespace, which the kernel ends in its own time."""
    end = f"bb{name.removeprefix(_NAMESPACE)}"
    with opened() as kernel:
        found = kernel.find(end) if HOST_END.fullmatch(end) else None
        # Its name is made of ten digits of a hash; the mark makes sure.
        if found is not None and found.alias == mark:
            kernel.delete(end)
    namespace.remove(name)


def _nft(rules: str) -> None:
    try:
        proc.run(["nft", "-f", "-"], input=rules.encode(), timeout=_NFT_TIMEOUT)
    except CommandFailed as error:
        said = [line for line in error.stderr.splitlines() if "Error:" in line] or [error.message]
        raise HostError(
            f"nft does not take bugbox's rules: {said[0].rpartition('Error: ')[2]}",
            hint="the kernel needs nf_tables with nat and masquerade",
            detail=error.stderr,
        ) from error
