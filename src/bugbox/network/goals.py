# SPDX-License-Identifier: Apache-2.0
"""What a puzzle's `network.egress` means in addresses: names are looked up on the host, once."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from bugbox.errors import HostError, UserError
from bugbox.network.firewall import Egress
from bugbox.network.lookup import looked_up
from bugbox.network.subnet import is_private

__all__ = ["egress_of"]

#: Every address of a name is opened, up to so many.
_MAX_ADDRESSES = 32

Lookup = Callable[[str], list[IPv4Address]]


def egress_of(asked: str | tuple[str, ...], lookup: Lookup | None = None) -> Egress:
    """Return what a machine may reach: `none`, `dns`, `full`, or goals as `host:port`.

    A goal's name means the addresses that it has now, and the guest may ask for names. UserError
    for a goal in a private network, HostError for a name that is not found.
    """
    if isinstance(asked, str):
        if asked not in ("none", "dns", "full"):
            raise UserError(f"network.egress: {asked!r} is not known")
        return Egress(dns=asked != "none", full=asked == "full")
    goals: list[tuple[IPv4Address, int]] = []
    for goal in asked:
        host, _, port = goal.rpartition(":")
        for address in (lookup or _lookup)(host)[:_MAX_ADDRESSES]:
            if is_private(address):
                raise UserError(
                    f"network.egress: {goal} lies in a private network ({address})",
                    hint="a machine reaches the internet only",
                )
            goals.append((address, int(port)))
    return Egress(dns=True, goals=tuple(dict.fromkeys(goals)))


def _lookup(host: str) -> list[IPv4Address]:
    found, failed = looked_up([host])
    if host in failed:
        raise HostError(f"network.egress: {host}: {failed[host]}")
    return sorted({*map(IPv4Address, found[host])})
