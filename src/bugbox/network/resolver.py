# SPDX-License-Identifier: Apache-2.0
"""Who answers a guest's questions for names: the host's own resolver, by a rule.

A guest asks 10.0.2.3; the packet is sent on to one real server. That server may lie in a private
network, which is closed to the guest otherwise: port 53 of this one address is opened. A resolver
on this host itself is not used: the guest would reach a service of the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from bugbox.errors import HostError, UserError

__all__ = ["choose", "parse_servers"]

#: systemd-resolved keeps the servers that it asks itself in the first.
_FILES = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))


def choose(
    setting: str, is_ours: Callable[[IPv4Address], bool], files: Collection[Path] = _FILES
) -> IPv4Address:
    """Return the server of the setting `network_dns`; `auto`: the first that this host asks.

    `is_ours` tells whether an address is this host's own.
    """
    if setting != "auto":
        try:
            return IPv4Address(setting)
        except AddressValueError:
            raise UserError(
                f"network_dns: expected auto or an IPv4 address, got {setting!r}"
            ) from None
    found: list[IPv4Address] = []
    for file in files:
        try:
            found += parse_servers(file.read_text(errors="replace"))
        except OSError:
            continue
    for server in found:
        if not server.is_loopback and not is_ours(server):
            return server
    said = ", ".join(map(str, found)) or "none"
    raise HostError(
        f"no name server that a machine may ask: this host asks {said}; none is another IPv4 host",
        hint="BUGBOX_NETWORK_DNS=ADDRESS names another",
    )


def parse_servers(text: str) -> list[IPv4Address]:
    """Return the IPv4 name servers of a resolv.conf(5)."""
    servers = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                servers.append(IPv4Address(words[1]))
            except AddressValueError:
                continue
    return servers
