# SPDX-License-Identifier: Apache-2.0
"""The test of a puzzle from end to end, on fake machines: which stage says what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from session_world import World, run, world

from bugbox.errors import BuildFailed
from bugbox.machine.fake import FakeDriver
from bugbox.puzzle.matrix import Sheet, Stage
from bugbox.session import drivers, matrix, record
from bugbox.session.matrix import Wishes, try_puzzles
from bugbox.session.trial import Trial
from bugbox.storage.disk import create_empty

ALL = frozenset(Stage)
#: In the fake's folder, as the tiny puzzle's check looks for it.
SOLVE = '#!/bin/sh\ntouch "$FAKE_ROOT/made"\n'


@pytest.fixture
def made(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world whose layer is there, is built the same twice, and holds nothing."""

    disk = tmp_path / "layer.qcow2"
    create_empty(disk, size_bytes=1 << 20)

    async def ensure(*_: object, **__: object) -> Any:
        return SimpleNamespace(key="1", tar_sha256="1" * 64, tar=disk, disk=disk)

    async def again(*_: object) -> str:
        return "1" * 64

    # The fake machines' driver is the only one here.
    monkeypatch.setattr(matrix, "BUILDER", "fake")

    async def listed(self: Trial) -> dict[bytes, bytes]:
        root = self.session.ledger.paths.root / "fake"
        found = [path for path in root.iterdir() if path.name != "log" and path.is_file()]
        return {str(path).encode(): str(path.stat().st_mtime_ns).encode() for path in found}

    monkeypatch.setattr(matrix, "ensure_layer", ensure)
    monkeypatch.setattr(matrix, "build_again", again)
    monkeypatch.setattr(matrix, "leaks", lambda *_: [])
    monkeypatch.setattr(Trial, "tree", listed)
    with world(tmp_path, templates="on") as found:
        found.wire()
        small = (found.puzzle / "puzzle.yaml").read_text() + "machine: {memory: 128MiB}\n"
        found.write("puzzle.yaml", small)
        found.write("wrong.d/look.sh", "#!/bin/sh\n# refused by: made\nls\n")
        yield found


def outcome_of(made: World, *, sheet: Sheet | None = None, **wishes: Any) -> Sheet:
    chosen = wishes.pop("chosen", ALL)
    sheet = sheet or Sheet(puzzle="tiny", chosen=chosen)

    async def work() -> None:
        what = Wishes(chosen=chosen, jobs=2, **wishes)
        await try_puzzles([(sheet, made.puzzle)], lambda _: made.parts, made.host, what)

    run(work)
    return sheet


def statuses(sheet: Sheet) -> dict[str, str]:
    return {str(stage): sheet.status(stage) for stage in Stage}


def messages(sheet: Sheet) -> dict[str, str]:
    return {str(case.stage): case.message for case in sheet.failures}


def test_a_good_puzzle_passes_every_stage_and_leaves_nothing(made: World) -> None:
    made.write("solve.d/other.sh", SOLVE)
    sheet = outcome_of(made, repeat=2)
    assert messages(sheet) == {}
    assert statuses(sheet) == {str(stage): "passed" for stage in Stage}
    names = {case.name for case in sheet.of(Stage.SOLVE)}
    assert names == {"solve.sh", "solve.sh (2)", "solve.d/other.sh", "solve.d/other.sh (2)"}
    assert sheet.passed
    assert made.leftovers() == []


@pytest.mark.parametrize(
    ("files", "stage", "message"),
    [
        ({"checks/made.sh": "#!/bin/sh\nset -e\nfail x\n"}, "lint", "set -e"),
        ({"ready.sh": "#!/bin/sh\nexit 127\n"}, "boot", "not broken as told"),
        ({"checks/made.sh": "#!/bin/sh\n: fail\n"}, "untouched", "passes on the untouched"),
        ({"checks/made.sh": "#!/bin/sh\n[ -e /no ] || exit 1; : fail\n"}, "untouched", "sentence"),
        (
            {"checks/made.sh": '#!/bin/sh\necho x >"$FAKE_ROOT/left"\n[ -e "$FAKE_ROOT/made" ] '
             '|| fail "No."\n'},
            "honest",
            "change files of the machine",
        ),
        ({"solve.sh": "#!/bin/sh\ntrue\n"}, "solve", "made still fails: No file yet."),
        ({"solve.sh": "#!/bin/sh\necho why\nexit 3\n"}, "solve", "ended with status 3"),
        ({"wrong.d/look.sh": SOLVE}, "wrong", "no check refuses it"),
        ({"boot.sh": '#!/bin/sh\nrm -f "$FAKE_ROOT/made"\n'}, "reboot", "after a reboot: made"),
    ],
)  # fmt: skip
def test_each_fault_fails_at_its_stage(
    made: World, files: dict[str, str], stage: str, message: str
) -> None:
    for name, text in files.items():
        made.write(name, text)
    if stage == "boot":
        made.write(
            "puzzle.yaml", (made.puzzle / "puzzle.yaml").read_text() + "boot: {timeout: 1s}\n"
        )
    sheet = outcome_of(made)
    found = messages(sheet)
    assert message in found.get(stage, ""), found
    assert sheet.failures[0].stage == stage
    assert not sheet.passed and made.leftovers() == []


def test_a_build_that_fails_or_differs(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def again(*_: object) -> str:
        return "2" * 64

    monkeypatch.setattr(matrix, "build_again", again)
    assert "two layers" in messages(outcome_of(made))["build"]

    async def fail(*_: object, **__: object) -> None:
        raise BuildFailed("build.sh ended with status 1", detail="no such file")

    monkeypatch.setattr(matrix, "ensure_layer", fail)
    sheet = outcome_of(made)
    assert sheet.failures[0].output == "no such file"
    assert sheet.status(Stage.BOOT) == "skipped" and sheet.why_skipped(Stage.BOOT) != ""


def test_layers_are_built_by_the_builder_whatever_runs_the_machines(
    made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Builder(FakeDriver):
        name = "builder"

    built: list[str] = []

    async def ensure(*args: Any, **__: object) -> Any:
        built.append(args[6].name)
        return SimpleNamespace(key="1", tar_sha256="1" * 64)

    async def again(*args: Any) -> str:
        built.append(args[6].name)
        return "1" * 64

    monkeypatch.setattr(matrix, "BUILDER", "builder")
    monkeypatch.setitem(drivers.DRIVERS, "builder", lambda home, settings: Builder())
    monkeypatch.setattr(matrix, "ensure_layer", ensure)
    monkeypatch.setattr(matrix, "build_again", again)
    assert outcome_of(made, chosen=frozenset({Stage.BUILD})).passed
    assert built == ["builder", "builder"]


def test_only_a_stage_does_no_more_than_it_needs(made: World) -> None:
    sheet = outcome_of(made, chosen=frozenset({Stage.WRONG}))
    assert sheet.shown() == [Stage.WRONG] and sheet.passed
    assert {case.stage for case in sheet.cases} == {
        Stage.LINT, Stage.BUILD, Stage.BOOT, Stage.WRONG,
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["untouched", "solve", "boot"])
def test_a_failed_machine_is_kept_and_handed_over(made: World, stage: str) -> None:
    if stage == "boot":
        made.write("ready.sh", "#!/bin/sh\nexit 127\n")
    elif stage == "solve":
        made.write("solve.sh", "#!/bin/sh\ntrue\n")
    else:
        made.write("checks/made.sh", "#!/bin/sh\n: fail\n")
    sheet = outcome_of(made, keep=True, chosen=frozenset({Stage.UNTOUCHED, Stage.SOLVE}))
    id = sheet.failures[0].machine
    assert id and sheet.failures[0].stage == stage
    kept = record.load(made.home, id)
    assert kept.phase is record.Phase.HANDED_OVER and not kept.fresh
    assert kept.process is not None and kept.process.alive


def test_a_kept_machine_brings_no_other_where_none_is_wanted(made: World) -> None:
    made.write("checks/made.sh", "#!/bin/sh\n: fail\n")
    sheet = outcome_of(made, keep=True, chosen=frozenset({Stage.UNTOUCHED}))
    assert sheet.failures[0].machine and not sheet.of(Stage.SOLVE)
    assert record.ids(made.home) == [sheet.failures[0].machine]


def test_without_templates_every_machine_is_booted(made: World) -> None:
    made.settings = dataclasses.replace(made.settings, templates="off")
    sheet = outcome_of(made)
    assert sheet.passed and sheet.status(Stage.CLONE) == "skipped"
    assert "the settings" in sheet.why_skipped(Stage.CLONE)


def test_interrupted_the_sheet_holds_what_was_done(made: World) -> None:
    made.write("solve.sh", "#!/bin/sh\nsleep 600\n")
    sheet = Sheet(puzzle="tiny", chosen=ALL)

    async def work() -> None:
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                with anyio.fail_after(60):
                    while not sheet.of(Stage.HONEST):  # noqa: ASYNC110
                        await anyio.sleep(0.02)
                group.cancel_scope.cancel()

            group.start_soon(stop)
            what = Wishes(chosen=ALL, jobs=2)
            await try_puzzles([(sheet, made.puzzle)], lambda _: made.parts, made.host, what)

    run(work)
    assert sheet.status(Stage.BOOT) == "passed" and sheet.status(Stage.REBOOT) == "interrupted"
    assert not sheet.passed and made.leftovers() == []
