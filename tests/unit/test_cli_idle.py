# SPDX-License-Identifier: Apache-2.0
"""`bugbox pause` and `doctor --fit` as typed."""

from __future__ import annotations

import json
from typing import Any

from cli_world import FakeKeeper, bugbox, home, keeper

__all__ = ["home", "keeper"]

FIT: dict[str, Any] = {
    "name": "read-me",
    "fits": 3,
    "each_mib": 352,
    "memory_mib": 256,
    "vmm_mib": 96,
    "standby_mib": 70,
    "host": {"free": 1100},
    "why": ["1356 MiB of the host's 2048 MiB are available"],
    "disk": {"free_mib": 9000, "each_mib_at_most": 2048},
}


def test_pause_names_the_machine_and_its_state(keeper: FakeKeeper) -> None:
    answer = {"id": "read-me-3f9k", "state": "paused"}
    keeper.verbs["pause"] = lambda talk, _: talk.result(answer)
    assert bugbox("pause", "read").stdout == b"read-me-3f9k is paused\n"
    assert keeper.asked[-1] == ("pause", {"id": "read", "save": False})
    assert json.loads(bugbox("pause", "--json").stdout) == answer
    assert bugbox("pause", "a", "b").returncode == 2


def test_fit_says_how_many_and_why(keeper: FakeKeeper) -> None:
    keeper.verbs["fit"] = lambda talk, _: talk.result(FIT)
    done = bugbox("doctor", "--fit", "read-me")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "3 more machines of read-me fit"
    assert "  each may take 352 MiB: 256 MiB of its own and 96 MiB for QEMU" in lines
    assert "  standby clones use 70 MiB, and give way" in lines
    assert json.loads(bugbox("doctor", "--fit", "read-me", "--json").stdout) == FIT


def test_fit_is_status_3_when_none_does(keeper: FakeKeeper) -> None:
    keeper.verbs["fit"] = lambda talk, _: talk.result({**FIT, "fits": 0})
    done = bugbox("doctor", "--fit", "read-me")
    assert done.returncode == 3
    assert done.stdout.startswith(b"0 more machines of read-me fit\n")
