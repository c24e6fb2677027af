# SPDX-License-Identifier: Apache-2.0
"""Interfaces, addresses and routes, by netlink: the only importer of pyroute2.

Loading pyroute2 takes as long as a whole thin command (0.1 s), and who runs no Firecracker never
needs it: it is loaded when it is first used.

A socket belongs to the network namespace of the thread that made it, so all of this works on the
calling thread's namespace; see network.namespace.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bugbox.errors import HostError, MissingPrivilege

__all__ = ["Interface", "Routes", "opened"]

_SCOPE_LINK = 253
_TABLE_MAIN = 254
_DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as the kernel tells it."""

    index: int
    name: str
    mtu: int
    alias: str


class Routes:
    """An open socket to the kernel's routing side."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def interfaces(self) -> list[Interface]:
        """Every interface there is."""
        return [
            Interface(
                index=int(message["index"]),
                name=str(message.get_attr("IFLA_IFNAME")),
                mtu=int(message.get_attr("IFLA_MTU") or _DEFAULT_MTU),
                alias=str(message.get_attr("IFLA_IFALIAS") or ""),
            )
            for message in self._socket.get_links()
        ]

    def find(self, name: str) -> Interface | None:
        """The interface of that name, or None."""
        return next((each for each in self.interfaces() if each.name == name), None)

    def add_veth(self, name: str, peer: str, *, mtu: int) -> None:
        """Make two interfaces that are each other's ends."""
        self._socket.link(
            "add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": peer, "mtu": mtu}
        )

    def set_alias(self, name: str, alias: str) -> None:
        """Write on an interface whose it is."""
        self._socket.link("set", index=self._index(name), ifalias=alias)

    def move(self, name: str, namespace: int) -> None:
        """Give an interface to the network namespace that the descriptor is of."""
        self._socket.link("set", index=self._index(name), net_ns_fd=namespace)

    def bring_up(self, name: str, *, mtu: int = 0, mac: str = "") -> None:
        """Set an interface up, with its size of packets and its hardware address."""
        index = self._index(name)
        if mac:
            self._socket.link("set", index=index, address=mac)
        if mtu:
            self._socket.link("set", index=index, mtu=mtu)
        self._socket.link("set", index=index, state="up")

    def add_address(self, name: str, address: IPv4Address, prefix: int) -> None:
        """Give an interface an address."""
        self._socket.addr("add", index=self._index(name), address=str(address), prefixlen=prefix)

    def add_default_route(self, gateway: IPv4Address) -> None:
        """Send what is for elsewhere to `gateway`."""
        self._socket.route("add", dst="0.0.0.0/0", gateway=str(gateway))

    def delete(self, name: str) -> bool:
        """Remove an interface, and its other end with it. False: there is none."""
        found = self.find(name)
        if found is None:
            return False
        with contextlib.suppress(OSError, *_refusals(errno.ENODEV)):
            self._socket.link("del", index=found.index)
        return True

    def addresses(self) -> set[IPv4Address]:
        """This host's own addresses."""
        found = (message.get_attr("IFA_LOCAL") for message in self._socket.get_addr(family=2))
        return {IPv4Address(each) for each in found if each}

    def networks_around(self, *, but: str) -> list[IPv4Network]:
        """Networks that this host is on itself, but for interfaces whose names begin with `but`."""
        own = {each.index for each in self.interfaces() if each.name.startswith(but)}
        return [
            IPv4Network((message.get_attr("RTA_DST"), message["dst_len"]), strict=False)
            for message in self._socket.get_routes(family=2)
            if message["table"] == _TABLE_MAIN
            and message["scope"] == _SCOPE_LINK
            and message.get_attr("RTA_DST")
            and message.get_attr("RTA_OIF") not in own
        ]

    def uplink_mtu(self) -> int:
        """Largest packet that goes out by the default route; 1500 where there is none."""
        sizes = {each.index: each.mtu for each in self.interfaces()}
        for message in self._socket.get_routes(family=2):
            if message["dst_len"] == 0 and message["table"] == _TABLE_MAIN:
                return min(_DEFAULT_MTU, sizes.get(message.get_attr("RTA_OIF"), _DEFAULT_MTU))
        return _DEFAULT_MTU

    def _index(self, name: str) -> int:
        found = self.find(name)
        if found is None:
            raise HostError(f"there is no interface {name}")
        return found.index


@contextmanager
def opened() -> Iterator[Routes]:
    """Have a socket in the calling thread's network namespace; refusals are HostError."""
    from pyroute2.iproute import IPRoute  # see the module's head
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as socket:
            yield Routes(socket)
    except NetlinkError as error:
        if error.code == errno.EPERM:
            raise MissingPrivilege("networks are for root to make", hint="run it as root") from None
        raise HostError(
            f"the kernel refuses a network interface: {os.strerror(error.code)}"
        ) from error


def _refusals(*codes: int) -> tuple[type[BaseException], ...]:
    from pyroute2.netlink.exceptions import NetlinkError

    return (NetlinkError,) if codes else ()
