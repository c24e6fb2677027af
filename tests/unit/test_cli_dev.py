# SPDX-License-Identifier: Apache-2.0
"""Which stages a save concerns, and that a save is seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bugbox.cli import dev
from bugbox.cli import test as test_command
from bugbox.errors import UserError
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.matrix import Stage
from bugbox.puzzle.scaffold import create

ALL = tuple(Stage)


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({"hints/1.md"}, (Stage.LINT, Stage.LEAK)),
        ({"wrong.d/x.sh"}, (Stage.LINT, Stage.WRONG)),
        ({"solve.sh"}, (Stage.LINT, Stage.SOLVE, Stage.REBOOT, Stage.LEAK)),
        ({"build.sh"}, ALL),
        ({"files/etc/motd"}, ALL),
        ({"puzzle.yaml", "hints/1.md"}, ALL),
        ({"break.sh"}, ALL),
    ],
)
def test_a_change_concerns_its_stages(changed: set[str], stages: tuple[Stage, ...]) -> None:
    assert dev.concerned(changed) == stages


def test_what_editors_leave_is_no_change(tmp_path: Path) -> None:
    folder = create(tmp_path, "demo")
    before = dev.look(folder)
    assert "checks/readable.sh" in before
    (folder / ".puzzle.yaml.swp").write_text("x")
    (folder / "solve.sh~").write_text("x")
    assert dev.look(folder) == before
    (folder / "solve.sh").chmod(0o644)
    assert set(dev.look(folder).items()) ^ set(before.items())


def test_it_tests_everything_once_and_then_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path, "demo")
    asked: list[tuple[Stage, ...]] = []

    def tested(names: list[str], *, only: Any, keep: bool, resident: Any) -> int:
        assert names == [str(folder)] and keep
        asked.append(only)
        if len(asked) == 1:
            (folder / "hints/1.md").write_text("Look elsewhere.\n")
        elif len(asked) == 2:
            raise KeyboardInterrupt
        return 1

    monkeypatch.setattr(dev, "tested", tested)
    with pytest.raises(KeyboardInterrupt):
        dev.dev(str(folder), shell=True)  # noqa: S604
    assert asked == [ALL, (Stage.LINT, Stage.LEAK)]


def test_another_base_saved_while_it_is_tested_is_for_the_next_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(tmp_path, "demo")
    text, base = (folder / "puzzle.yaml").read_text(), load(folder).base
    assert f"base: {base}" in text
    filled: list[object] = []

    class Resident:
        def fill(self, *args: object) -> None:
            filled.append(args)

    async def try_puzzles(
        sheets: object, shared: Callable[[Puzzle], object], *rest: object
    ) -> None:
        (folder / "puzzle.yaml").write_text(text.replace(f"base: {base}", "base: debian-12-tini"))
        if early:
            shared(load(folder))

    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(test_command, "_shared", lambda folders: {base: object()})
    monkeypatch.setattr(test_command, "try_puzzles", try_puzzles)
    resident: Any = Resident()
    early = False
    assert test_command.tested([str(folder)], resident=resident) in (0, 1)
    assert filled == []
    # Also before the base's parts are asked for: an error that the watch goes on after.
    early = True
    (folder / "puzzle.yaml").write_text(text)
    with pytest.raises(UserError, match="base is debian-12-tini now"):
        test_command.tested([str(folder)], resident=resident)
