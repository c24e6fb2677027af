# SPDX-License-Identifier: Apache-2.0
"""Interfaces, addresses and routes, by netlink: the only importer of pyroute2.

Loading pyroute2 takes as long as a whole thin command (0.1 s), and who runs no Firecracker never
needs it: it is loaded when it is first used. Interfaces are asked for by name: a list of them all
takes long where there are a hundred machines.

A socket belongs to the network namespace of the thread that made it, so all of this works on the
calling thread's namespace; see network.namespace.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from bugbox.errors import HostError, MissingPrivilege

__all__ = ["Interface", "Routes", "opened"]


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
        return [_interface(message) for message in self._socket.get_links()]

    def find(self, name: str) -> Interface | None:
        """The interface of that name, or None."""
        with _unless_gone():
            return next(map(_interface, self._socket.link("get", ifname=name)), None)
        return None

    def add_veth(self, name: str, peer: str, *, mtu: int) -> None:
        """Make two interfaces that are each other's ends."""
        other = {"ifname": peer, "mtu": mtu}
        self._socket.link("add", ifname=name, kind="veth", mtu=mtu, peer=other)

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
        with _unless_gone():
            self._socket.link("del", index=found.index)
        return True

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
        said = os.strerror(error.code)
        raise HostError(f"the kernel refuses a network interface: {said}") from error


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Go on behind the block when the interface that it is about is not there."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def _interface(message: Any) -> Interface:
    return Interface(
        index=int(message["index"]),
        name=str(message.get_attr("IFLA_IFNAME")),
        mtu=int(message.get_attr("IFLA_MTU")),
        alias=str(message.get_attr("IFLA_IFALIAS") or ""),
    )
