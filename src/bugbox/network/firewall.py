# SPDX-License-Identifier: Apache-2.0
"""What a guest may reach, as nftables rules: text of the state, replaced as a whole (pure).

There are two tables. The host's, `inet bugbox`, is made anew from all the leases whenever one
changes, and is gone with the last: nothing in it is ever added to or taken from, and no table or
chain of anybody else's is named. Each machine's, `ip bugbox`, lies in the machine's own network
namespace and goes with it. A guest has only its end of the tap, so both are out of its reach; a
packet must pass both.

A dropped packet is dropped for good, whatever other tables say; one that ours accepts may still be
dropped by theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from bugbox.network.subnet import DNS, GUEST, PRIVATE, Link

__all__ = ["Egress", "Wired", "host_rules", "machine_rules"]

TAP = "tap0"
UPLINK = "uplink"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """What a machine may reach outside; by default nothing."""

    dns: bool = False
    full: bool = False
    #: Addresses and TCP or UDP ports.
    goals: tuple[tuple[IPv4Address, int], ...] = ()

    @property
    def any(self) -> bool:
        """Whether anything at all gets out."""
        return self.dns or self.full or bool(self.goals)

    def as_facts(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        goals = [f"{address}:{port}" for address, port in self.goals]
        return {"dns": self.dns, "full": self.full, "goals": goals}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Egress:
        """Read what `as_facts` returned."""
        goals = (str(goal).rsplit(":", 1) for goal in facts.get("goals", []))
        return cls(
            dns=facts.get("dns") is True,
            full=facts.get("full") is True,
            goals=tuple((IPv4Address(address), int(port)) for address, port in goals),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A machine as the host sees it: the host's end of its link."""

    name: str
    link: Link
    egress: Egress
    #: Who answers its questions for names.
    resolver: IPv4Address | None = None


def host_rules(machines: Sequence[Wired], *, around: Iterable[IPv4Network] = ()) -> str:
    """Return what `nft -f -` makes the host's table of; no machines, no table.

    `around` are the networks that the host is on: its neighbours.
    """
    # Adding what is there already is no error, so that deleting never is one either.
    gone = "table inet bugbox\ndelete table inet bugbox\n"
    if not machines:
        return gone
    asking = [m for m in machines if m.resolver and m.egress.any]
    out = [m for m in machines if m.egress.any]
    names = [_quoted(m.name) for m in machines]
    sources = [f"{_quoted(m.name)} . {m.link.machine}" for m in machines]
    goals = [
        f"{_quoted(m.name)} . {address} . {port}"
        for m in machines
        for address, port in m.egress.goals
    ]
    full = [_quoted(m.name) for m in machines if m.egress.full]
    ask = [f"{_quoted(m.name)} . {m.resolver}" for m in asking]
    questions = [f"{_quoted(m.name)} . {m.link.host} : {m.resolver}" for m in asking]
    masked = [str(m.link.machine) for m in out]
    denied = _merged([*PRIVATE, *around])
    lines = [
        *_set("machines", "ifname", names),
        *_set("sources", "ifname . ipv4_addr", sources),
        *_set("unlimited", "ifname", full),
        *_set("goals", "ifname . ipv4_addr . inet_service", goals),
        *_set("resolvers", "ifname . ipv4_addr", ask),
        *_set("questions", "ifname . ipv4_addr : ipv4_addr", questions, kind="map"),
        *_set("masked", "ipv4_addr", masked),
        *_set("denied", "ipv4_addr", denied, flags="interval"),
        *_chain(
            "lead_names",
            "type nat hook prerouting priority dstnat; policy accept;",
            "udp dport 53 dnat ip to iifname . ip daddr map @questions",
            "tcp dport 53 dnat ip to iifname . ip daddr map @questions",
        ),
        *_chain(
            "to_host",
            "type filter hook input priority filter - 10; policy accept;",
            "iifname @machines ct state established,related accept",
            "iifname @machines drop",
        ),
        *_chain(
            "from_host",
            "type filter hook output priority filter - 10; policy accept;",
            "oifname @machines meta skuid != 0 drop",
        ),
        *_chain(
            "pass_on",
            "type filter hook forward priority filter - 10; policy accept;",
            "iifname @machines jump from_machine",
            "oifname @machines jump to_machine",
        ),
        *_chain(
            "from_machine",
            "meta nfproto ipv6 drop",
            "iifname . ip saddr != @sources drop",
            "oifname @machines drop",
            "iifname . ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept",
            "ip daddr @denied drop",
            "meta l4proto { tcp, udp } iifname . ip daddr . th dport @goals accept",
            "iifname != @unlimited drop",
            "accept",
        ),
        *_chain("to_machine", "ct state established,related accept", "drop"),
        *_chain(
            "mask_out",
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr @masked oifname != @machines masquerade",
        ),
    ]
    return gone + "table inet bugbox {\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def machine_rules(link: Link, egress: Egress, published: Iterable[int] = ()) -> str:
    """Return the table of one machine's own namespace, between its tap and its uplink.

    `published` are ports of the guest that the host may reach, at the machine's end of the link.
    """
    ports = [str(port) for port in sorted(set(published))]
    names = (
        [
            f'iifname "{TAP}" ip daddr {DNS} udp dport 53 dnat to {link.host}',
            f'iifname "{TAP}" ip daddr {DNS} tcp dport 53 dnat to {link.host}',
        ]
        if egress.any
        else []
    )
    out = [f'iifname "{TAP}" oifname "{UPLINK}" ip saddr {GUEST} accept'] if egress.any else []
    lines = [
        *_set("published", "inet_service", ports),
        *_chain(
            "lead_in",
            "type nat hook prerouting priority dstnat; policy accept;",
            *names,
            f'iifname "{UPLINK}" ip saddr {link.host} tcp dport @published dnat to {GUEST}',
            f'iifname "{UPLINK}" ip saddr {link.host} udp dport @published dnat to {GUEST}',
        ),
        *_chain(
            "mask_out",
            "type nat hook postrouting priority srcnat; policy accept;",
            f'oifname {{ "{TAP}", "{UPLINK}" }} masquerade',
        ),
        *_chain(
            "to_itself",
            "type filter hook input priority filter; policy drop;",
            f'iifname "{TAP}" icmp type echo-request accept',
            f'iifname "{TAP}" udp sport 68 udp dport 67 accept',
        ),
        *_chain(
            "pass_on",
            "type filter hook forward priority filter; policy drop;",
            "ct state established,related accept",
            f'iifname "{UPLINK}" ct status dnat accept',
            *out,
        ),
    ]
    gone = "table ip bugbox\ndelete table ip bugbox\n"
    return gone + "table ip bugbox {\n" + "".join(f"\t{line}\n" for line in lines) + "}\n"


def _set(
    name: str, type: str, elements: Sequence[str], *, kind: str = "set", flags: str = ""
) -> list[str]:
    inside = [f"type {type}"]
    if flags:
        inside.append(f"flags {flags}")
    if elements:
        inside.append(f"elements = {{ {', '.join(elements)} }}")
    return [f"{kind} {name} {{", *(f"\t{line}" for line in inside), "}"]


def _chain(name: str, *rules: str) -> list[str]:
    return [f"chain {name} {{", *(f"\t{rule}" for rule in rules), "}"]


def _quoted(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for an interface")
    return f'"{name}"'


def _merged(networks: Iterable[IPv4Network]) -> list[str]:
    """Networks without those that lie in others: nft takes no elements that overlap."""
    kept: list[IPv4Network] = []
    for network in sorted(set(networks), key=lambda n: (n.prefixlen, n.network_address)):
        if not any(network.subnet_of(other) for other in kept):
            kept.append(network)
    return [str(network) for network in sorted(kept)]
