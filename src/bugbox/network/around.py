# SPDX-License-Identifier: Apache-2.0
"""Where this host is in its networks: its neighbours, its way out, its own addresses.

Read from one file of the kernel's, in which each line has a route and its interface's name: lists
of both, one after the other, do not agree while others come and go.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

__all__ = ["HOST_END", "Place", "is_ours", "parse_routes", "routes"]

#: What the host's ends of machines' links are called.
HOST_END = re.compile(r"bb[0-9a-f]{10}")

_GATEWAY = 0x2


@dataclass(frozen=True, slots=True)
class Place:
    """The networks that the host is on itself, machines' links left out, and its way out."""

    networks: tuple[IPv4Network, ...]
    #: The interface of the default route; empty: there is none.
    uplink: str


def routes() -> Place:
    """Read where this host is; of the calling thread's network namespace."""
    return parse_routes(Path("/proc/thread-self/net/route").read_text())


def parse_routes(text: str) -> Place:
    """Read /proc/net/route: interface, destination, gateway, flags, …, metric, mask, … (pure)."""
    networks: list[IPv4Network] = []
    ways: list[tuple[int, str]] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        target = IPv4Network((_address(words[1]), str(_address(words[7]))), strict=False)
        if target.prefixlen == 0:
            ways.append((int(words[6]), words[0]))
        elif not int(words[3], 16) & _GATEWAY and not HOST_END.fullmatch(words[0]):
            networks.append(target)
    return Place(tuple(networks), min(ways)[1] if ways else "")


def is_ours(address: IPv4Address) -> bool:
    """Whether it is an address of this host: then the way to it begins there, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        try:
            link.connect((str(address), 53))  # nothing is sent
        except OSError:
            return False
        return IPv4Address(link.getsockname()[0]) == address


def _address(word: str) -> IPv4Address:
    """An address as the kernel's own memory has it, in hex."""
    return IPv4Address(int.from_bytes(bytes.fromhex(word), "little"))
