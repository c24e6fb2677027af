# SPDX-License-Identifier: Apache-2.0
"""Which network card a machine gets, and what is refused because nobody could keep to it."""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from session_world import World, world
from test_session_manager import managed

from bugbox.errors import HostError
from bugbox.machine.spec import Nic
from bugbox.session.description import from_json, to_json
from bugbox.session.manager import Manager
from bugbox.session.network import card
from bugbox.session.provision import spec_of


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


PROBE = "  - {id: page, title: P, where: outside, probe: {tcp: 80}}\n"


def nics(made: World, **changes: object) -> tuple[Nic, ...]:
    plan = made.plan(**changes)
    paths = made.home.session("tiny-abcd")
    return spec_of(paths, plan, made.parts, made.settings, None).nics


def probing(made: World) -> None:
    text = made.puzzle.joinpath("puzzle.yaml").read_text()
    made.write("puzzle.yaml", text.replace("hints:\n", f"{PROBE}hints:\n"))


def test_a_machine_has_no_card_unless_somebody_wants_one(made: World) -> None:
    assert nics(made) == ()
    probing(made)
    (nic,) = nics(made)
    assert nic.restrict, "what is sent in can be answered, and no more"


def test_the_whole_network_is_the_owners_to_allow(made: World) -> None:
    with pytest.raises(HostError, match="own services") as caught:
        nics(made, egress="full")
    assert "BUGBOX_OPEN_NETWORK=on" in (caught.value.hint or "")
    made.settings = replace(made.settings, open_network="on")
    (nic,) = nics(made, egress="full")
    assert not nic.restrict


@pytest.mark.parametrize("allowed", ["off", "on"])
def test_some_of_it_is_reached_through_a_gate(made: World, allowed: str) -> None:
    """Private networks and the host itself are its owner's to allow there, too."""
    made.settings = replace(made.settings, open_network=allowed)
    (nic,) = nics(made, egress=("deb.example:80",))
    assert (nic.restrict, nic.reach, nic.names) == (False, ("deb.example:80",), False)
    assert nic.private is (allowed == "on")
    (nic,) = nics(made, egress="dns")
    assert (nic.restrict, nic.reach, nic.names) == (False, (), True)
    spec = spec_of(made.home.session("a-b"), made.plan(egress="dns"), made.parts, made.settings, 7)
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec


def test_what_was_written_down_before_there_were_gates_is_understood(made: World) -> None:
    probing(made)
    spec = spec_of(made.home.session("a-b"), made.plan(), made.parts, made.settings, None)
    raw = json.loads(json.dumps(to_json(spec)))
    raw["nics"] = [{key: raw["nics"][0][key] for key in ("id", "mac", "restrict")}]
    assert from_json(raw) == spec


@pytest.mark.parametrize("egress", ["full", "dns", ("deb.example:80",)])
def test_what_cannot_be_kept_to_is_refused(made: World, egress: object) -> None:
    with pytest.raises(HostError):
        card(made.plan(egress=egress, probed=True), made.settings)


def test_it_is_refused_before_anything_is_made(made: World) -> None:
    text = made.puzzle.joinpath("puzzle.yaml").read_text()
    made.write("puzzle.yaml", text + "network: {egress: full}\n")

    async def work(manager: Manager) -> None:
        with pytest.raises(HostError, match="own services"):
            await manager.answer("start", {"puzzle": str(made.puzzle)})

    managed(made, work)
    assert made.leftovers() == []


def test_a_probe_reaches_a_sessions_machine(made: World) -> None:
    """A fake machine's ports are this host's own."""
    made.wire()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = made.puzzle.joinpath("puzzle.yaml").read_text()
        probe = PROBE.replace("tcp: 80", f"tcp: {port}")
        made.write("puzzle.yaml", text.replace("hints:\n", f"{probe}hints:\n"))

        async def work(manager: Manager) -> None:
            await manager.answer("start", {"puzzle": str(made.puzzle)})
            report = await manager.answer("check", {})
            assert [each["status"] for each in report["checks"]] == ["failed", "passed"]
            server.close()
            report = await manager.answer("check", {})
            assert report["checks"][1]["message"] == (
                f"nothing answers on port {port} from outside"
            )

        managed(made, work)
