# SPDX-License-Identifier: Apache-2.0
"""Subnets, rules as text, name servers and goals: what the kernel is told, without a kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from bugbox.errors import HostError, UserError
from bugbox.network import resolver, subnet
from bugbox.network.around import Place, is_ours, parse_routes
from bugbox.network.firewall import Egress, Wired, host_rules, machine_rules
from bugbox.network.goals import egress_of

POOL = subnet.parse_pool("10.213.0.0/16")

HOST = """\
table inet bugbox
delete table inet bugbox
table inet bugbox {
	set machines {
		type ifname
		elements = { "bbshut", "bball", "bbsome" }
	}
	set sources {
		type ifname . ipv4_addr
		elements = { "bbshut" . 10.213.0.2, "bball" . 10.213.0.6, "bbsome" . 10.213.0.10 }
	}
	set unlimited {
		type ifname
		elements = { "bball" }
	}
	set goals {
		type ifname . ipv4_addr . inet_service
		elements = { "bbsome" . 198.51.100.7 . 443 }
	}
	set resolvers {
		type ifname . ipv4_addr
		elements = { "bball" . 192.168.1.1, "bbsome" . 192.168.1.1 }
	}
	map questions {
		type ifname . ipv4_addr : ipv4_addr
		elements = { "bball" . 10.213.0.5 : 192.168.1.1, "bbsome" . 10.213.0.9 : 192.168.1.1 }
	}
	set masked {
		type ipv4_addr
		elements = { 10.213.0.6, 10.213.0.10 }
	}
	set denied {
		type ipv4_addr
		flags interval
		elements = { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, \
172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, 198.18.0.0/15, 203.0.113.0/24, \
224.0.0.0/4, 240.0.0.0/4 }
	}
	chain lead_names {
		type nat hook prerouting priority dstnat; policy accept;
		udp dport 53 dnat ip to iifname . ip daddr map @questions
		tcp dport 53 dnat ip to iifname . ip daddr map @questions
	}
	chain to_host {
		type filter hook input priority filter - 10; policy accept;
		iifname @machines ct state established,related accept
		iifname @machines drop
	}
	chain from_host {
		type filter hook output priority filter - 10; policy accept;
		oifname @machines meta skuid != 0 drop
	}
	chain pass_on {
		type filter hook forward priority filter - 10; policy accept;
		iifname @machines jump from_machine
		oifname @machines jump to_machine
	}
	chain from_machine {
		meta nfproto ipv6 drop
		iifname . ip saddr != @sources drop
		oifname @machines drop
		iifname . ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept
		ip daddr @denied drop
		meta l4proto { tcp, udp } iifname . ip daddr . th dport @goals accept
		iifname != @unlimited drop
		accept
	}
	chain to_machine {
		ct state established,related accept
		drop
	}
	chain mask_out {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @masked oifname != @machines masquerade
	}
}
"""

SHUT = """\
table ip bugbox
delete table ip bugbox
table ip bugbox {
	set published {
		type inet_service
		elements = { 80, 8080 }
	}
	chain lead_in {
		type nat hook prerouting priority dstnat; policy accept;
		iifname "uplink" ip saddr 10.213.0.1 tcp dport @published dnat to 10.0.2.15
		iifname "uplink" ip saddr 10.213.0.1 udp dport @published dnat to 10.0.2.15
	}
	chain mask_out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname { "tap0", "uplink" } masquerade
	}
	chain to_itself {
		type filter hook input priority filter; policy drop;
		iifname "tap0" icmp type echo-request accept
		iifname "tap0" udp sport 68 udp dport 67 accept
	}
	chain pass_on {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "uplink" ct status dnat accept
	}
}
"""


def wired(name: str, number: int, egress: Egress) -> Wired:
    server = IPv4Address("192.168.1.1") if egress.any else None
    return Wired(name=name, link=subnet.link(POOL, number), egress=egress, resolver=server)


def test_the_hosts_rules() -> None:
    goal = (IPv4Address("198.51.100.7"), 443)
    machines = [
        wired("bbshut", 0, Egress()),
        wired("bball", 1, Egress(dns=True, full=True)),
        wired("bbsome", 2, Egress(dns=True, goals=(goal,))),
    ]
    # The second lies in a network that is denied already, and nft takes no elements that overlap.
    around = [IPv4Network("203.0.113.0/24"), IPv4Network("192.168.1.0/24")]
    assert host_rules(machines, around=around) == HOST


def test_no_machines_no_table() -> None:
    assert host_rules([]) == "table inet bugbox\ndelete table inet bugbox\n"


def test_a_machines_rules() -> None:
    link = subnet.link(POOL, 0)
    assert machine_rules(link, Egress(), published=[8080, 80, 80]) == SHUT
    opened = machine_rules(link, Egress(dns=True))
    added = [line.strip() for line in opened.splitlines() if line not in SHUT.splitlines()]
    assert added == [
        'iifname "tap0" ip daddr 10.0.2.3 udp dport 53 dnat to 10.213.0.1',
        'iifname "tap0" ip daddr 10.0.2.3 tcp dport 53 dnat to 10.213.0.1',
        'iifname "tap0" oifname "uplink" ip saddr 10.0.2.15 accept',
    ]


def test_a_name_is_never_text_of_a_rule() -> None:
    with pytest.raises(ValueError, match="no name for an interface"):
        host_rules([wired('x"; flush ruleset; "', 0, Egress())])


def test_egress_survives_the_lease() -> None:
    told = Egress(dns=True, goals=((IPv4Address("198.51.100.7"), 443),))
    assert Egress.from_facts(told.as_facts()) == told
    assert Egress.from_facts({}) == Egress()


def test_links() -> None:
    assert subnet.size(POOL) == 16384
    assert subnet.link(POOL, 16383) == subnet.Link(
        IPv4Address("10.213.255.253"), IPv4Address("10.213.255.254")
    )
    assert subnet.clash(POOL, [IPv4Network("10.0.0.0/8")]) == IPv4Network("10.0.0.0/8")
    assert subnet.clash(POOL, [IPv4Network("10.0.2.0/24")]) is None


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("10.213.0.1/16", "host bits"),
        ("10.213.0.0/31", "between /8 and /30"),
        ("198.51.100.0/24", "in the internet"),
        ("fd00::/64", "network_pool"),
        ("much", "network_pool"),
    ],
)
def test_wrong_pools(pool: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        subnet.parse_pool(pool)


def test_the_first_server_that_is_not_ourselves(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nameserver 127.0.0.53\nnameserver fe80::1\noptions edns0\n")
    (tmp_path / "b").write_text("nameserver 192.0.2.2\n; no\nnameserver\nnameserver 10.1.1.1\n")
    files = [tmp_path / "gone", tmp_path / "a", tmp_path / "b"]
    ours = {IPv4Address("192.0.2.2")}.__contains__
    assert resolver.choose("auto", ours, files) == IPv4Address("10.1.1.1")
    assert resolver.choose("9.9.9.9", ours, files) == IPv4Address("9.9.9.9")
    with pytest.raises(HostError, match=r"this host asks 127\.0\.0\.53; none is") as lost:
        resolver.choose("auto", ours, files[:2])
    assert "BUGBOX_NETWORK_DNS" in str(lost.value.hint)
    with pytest.raises(UserError, match="network_dns: expected auto or"):
        resolver.choose("dns.lan", ours, files)


def test_goals_are_addresses() -> None:
    known = {"www.lan": ["198.51.100.7", "198.51.100.8"], "home.lan": ["192.168.1.9"]}

    def lookup(host: str) -> list[IPv4Address]:
        return [IPv4Address(each) for each in known[host]]

    assert egress_of("none") == Egress()
    assert egress_of("dns") == Egress(dns=True)
    assert egress_of("full") == Egress(dns=True, full=True)
    assert egress_of(("www.lan:443",), lookup) == Egress(
        dns=True,
        goals=((IPv4Address("198.51.100.7"), 443), (IPv4Address("198.51.100.8"), 443)),
    )
    with pytest.raises(UserError, match=r"home\.lan:80 lies in a private network"):
        egress_of(("home.lan:80",), lookup)
    with pytest.raises(UserError, match="private network"):
        egress_of(("169.254.169.254:80",))
    with pytest.raises(UserError, match="not known"):
        egress_of("some")


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
bb0123456789\t0000D50A\t00000000\t0001\t0\t0\t0\tFCFFFFFF\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wlan0\t0000000A\t0101A8C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0
"""


def test_where_the_host_is() -> None:
    """Networks behind a gateway are not around it, nor are machines' own links."""
    place = parse_routes(ROUTES)
    assert place.uplink == "eth0"
    assert place.networks == (IPv4Network("192.0.2.0/24"), IPv4Network("192.168.1.0/24"))
    assert parse_routes("Iface\n") == Place((), "")


def test_an_address_of_this_host() -> None:
    assert is_ours(IPv4Address("127.0.0.1"))
    assert not is_ours(IPv4Address("198.51.100.7"))
