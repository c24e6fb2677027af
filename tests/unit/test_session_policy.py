# SPDX-License-Identifier: Apache-2.0
"""Points, passes that stay, and failures that are told one at a time, in a session."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_world import World, world
from test_session_manager import managed, start, touch

from bugbox.session.manager import Manager

SECOND = "  - {id: sealed, title: It is sealed, run: checks/sealed.sh}\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        made.write(
            "checks/sealed.sh",
            '#!/bin/sh\n[ -e "$FAKE_ROOT/sealed" ] || { echo "No seal yet."; exit 1; }\n',
        )
        yield made


def wishing(made: World, more: str) -> None:
    text = made.puzzle.joinpath("puzzle.yaml").read_text()
    made.write("puzzle.yaml", text.replace("hints:\n", f"{SECOND}hints:\n") + more)


def statuses(report: dict[str, object]) -> list[str]:
    return [each["status"] for each in report["checks"]]  # type: ignore[index, attr-defined]


def seal(made: World, id: str) -> None:
    (made.home.session(id).root / "fake" / "sealed").touch()


@pytest.mark.parametrize(
    ("mode", "both"), [("edge", ["passed", "passed"]), ("level", ["failed", "passed"])]
)
def test_what_has_passed_may_count_for_good(made: World, mode: str, both: list[str]) -> None:
    wishing(made, f"check_policy: {{mode: {mode}}}\n")

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        touch(made, id)
        assert statuses(await manager.answer("check", {})) == ["passed", "failed"]
        (made.home.session(id).root / "fake" / "made").unlink()
        seal(made, id)
        report = await manager.answer("check", {})
        assert statuses(report) == both
        assert report["solved"] is (mode == "edge")
        await manager.answer("reset", {"id": id})
        (made.home.session(id).root / "fake" / "sealed").unlink()  # a fake's disk is not made anew
        assert statuses(await manager.answer("check", {})) == ["failed", "failed"]

    managed(made, work)


def test_of_two_failures_one_says_why(made: World) -> None:
    wishing(made, "check_policy: {show_failures: first, min_interval: 5s}\n")

    async def work(manager: Manager) -> None:
        await start(made, manager)
        # Nobody waits on their own machine.
        for _ in range(2):
            report = await manager.answer("check", {})
            assert statuses(report) == ["failed", "failed"]
            assert [each["message"] for each in report["checks"]] == ["No file yet.", ""]

    managed(made, work)


def test_points_are_counted_when_it_is_solved(made: World) -> None:
    wishing(made, "scoring: {points: 100, first_try_bonus: 20}\n")
    text = made.puzzle.joinpath("puzzle.yaml").read_text()
    made.write("puzzle.yaml", text.replace("hints/1.md}", "hints/1.md, cost: 15}"))

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        assert (await manager.answer("story", {}))["points"] == 120
        await manager.answer("check", {})
        await manager.answer("hint", {})
        assert (await manager.answer("story", {}))["points"] == 85
        touch(made, id)
        seal(made, id)
        assert (await manager.answer("check", {}))["solved"] is True
        # What is asked for afterwards costs nothing any more.
        await manager.answer("hint", {"n": 2})
        assert (await manager.answer("story", {}))["points"] == 85

    managed(made, work)
    (line,) = made.home.progress.read_text().splitlines()
    assert json.loads(line)["points"] == 85


def test_a_puzzle_without_points_tells_of_none(made: World) -> None:
    wishing(made, "")

    async def work(manager: Manager) -> None:
        id = await start(made, manager)
        touch(made, id)
        seal(made, id)
        assert (await manager.answer("check", {}))["solved"] is True
        assert (await manager.answer("story", {}))["points"] is None

    managed(made, work)
    assert "points" not in json.loads(made.home.progress.read_text())
