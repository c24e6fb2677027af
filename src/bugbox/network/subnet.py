# SPDX-License-Identifier: Apache-2.0
"""Which addresses are ours, and which are nobody's business of a guest's (pure).

Inside, every machine has the same addresses, those of QEMU's user-mode network: a puzzle finds the
same world on every driver, and a clone wakes up where it was saved. Outside, each has a link of
its own with the host, a /30 of the pool.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from bugbox.errors import UserError

__all__ = [
    "DNS", "GATEWAY", "GUEST", "GUEST_MAC", "INSIDE", "PRIVATE", "TAP_MAC", "Link", "clash",
    "is_private", "link", "parse_pool", "size",
]  # fmt: skip

INSIDE = IPv4Network("10.0.2.0/24")
GUEST = IPv4Address("10.0.2.15")
GATEWAY = IPv4Address("10.0.2.2")
#: Where a guest asks for names, when it may; the base image's resolv.conf says so.
DNS = IPv4Address("10.0.2.3")
#: Fixed, so that a clone's neighbour table is right when it wakes up. Locally administered.
GUEST_MAC = "52:54:00:12:34:56"
TAP_MAC = "52:54:00:12:35:02"

#: What no guest ever reaches: this host's and its owner's own networks, cloud metadata, and what
#: is no place on the internet. Documentation's ranges lead nowhere, and are not in it.
PRIVATE = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

_LINK_PREFIX = 30


@dataclass(frozen=True, slots=True)
class Link:
    """The two ends of a machine's link with the host."""

    host: IPv4Address
    machine: IPv4Address
    prefix: int = _LINK_PREFIX


def parse_pool(text: str) -> IPv4Network:
    """Read the setting `network_pool`; UserError says what is wrong with it."""
    try:
        pool = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError) as error:
        raise UserError(
            f"network_pool: {error}", hint="name a network such as 10.213.0.0/16"
        ) from None
    if not 8 <= pool.prefixlen <= _LINK_PREFIX:
        raise UserError(f"network_pool: {pool} should be of a size between /8 and /30")
    if not is_private(pool.network_address):
        raise UserError(
            f"network_pool: {pool} lies in the internet", hint="take a part of 10.0.0.0/8"
        )
    return pool


def size(pool: IPv4Network) -> int:
    """Return how many links the pool has."""
    return int(2 ** (_LINK_PREFIX - pool.prefixlen))


def link(pool: IPv4Network, number: int) -> Link:
    """Return the link with that number."""
    first = pool.network_address + 4 * number
    return Link(host=first + 1, machine=first + 2)


def is_private(address: IPv4Address) -> bool:
    """Whether it lies in a range that no guest reaches."""
    return any(address in network for network in PRIVATE)


def clash(pool: IPv4Network, networks: Iterable[IPv4Network]) -> IPv4Network | None:
    """Return a network of the host's that the pool overlaps with, or None."""
    return next((each for each in networks if each.overlaps(pool)), None)
