# SPDX-License-Identifier: Apache-2.0
"""Who has which link, where nft does not take the rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bugbox.errors import HostError
from bugbox.host import proc
from bugbox.host.lease import tag
from bugbox.network import net
from bugbox.network.around import Place
from bugbox.network.firewall import Egress
from bugbox.network.net import Network

PLACE = Place(networks=(), uplink="")


class Rules:
    """Stands for nft."""

    broken = False

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, rules: str) -> None:
        if self.broken:
            raise HostError("nft does not take bugbox's rules")
        self.told.append(rules)


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Rules:
    """No kernel is asked or told anything."""
    fake = Rules()
    monkeypatch.setattr(proc, "find", lambda name: name)
    monkeypatch.setattr(net, "_nft", fake)
    monkeypatch.setattr(net, "routes", lambda: PLACE)
    monkeypatch.setattr(net, "_mtu", lambda place: 1500)
    monkeypatch.setattr(net, "_make", lambda *_: None)
    monkeypatch.setattr(net, "_unmake", lambda *_: None)
    return fake


@pytest.fixture
def owner(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        place = tmp_path / "sessions" / name
        place.mkdir(parents=True)
        return place

    return make


def test_what_could_not_be_made_has_no_lease(
    rules: Rules, owner: Callable[[str], Path], tmp_path: Path
) -> None:
    network = Network(tmp_path / "leases")
    one = owner("one")
    rules.broken = True
    with pytest.raises(HostError, match="nft"):
        network.connect(one, Egress())
    # Others read what is on the disk.
    again = Network(tmp_path / "leases")
    assert again.find(one) is None
    again.give_back(one)


def test_what_is_given_back_while_nft_fails_is_told_once(
    rules: Rules, owner: Callable[[str], Path], tmp_path: Path
) -> None:
    network = Network(tmp_path / "leases")
    one, two = owner("one"), owner("two")
    network.connect(one, Egress())
    assert f"bb{tag(one)}" in rules.told[-1]
    rules.broken = True
    with pytest.raises(HostError, match="nft"):
        network.give_back(one)
    network.give_back(one)
    assert network.find(one) is None
    # And the next rules are of those who are there.
    rules.broken = False
    network.connect(two, Egress())
    assert f"bb{tag(two)}" in rules.told[-1]
    assert f"bb{tag(one)}" not in rules.told[-1]
