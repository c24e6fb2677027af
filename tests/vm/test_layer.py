# SPDX-License-Identifier: Apache-2.0
"""The loss table: everything build.sh can do to a filesystem arrives on the learner's real ext4.

One puzzle makes every case, one machine looks at all of them; each row is a test of its own. What
no tar can carry is told, with what to do instead.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bugbox.image import store
from bugbox.paths import Home
from bugbox.puzzle.definition import load
from bugbox.session.container import built_in_container
from bugbox.storage import layer_file
from tests.conftest import Bugbox
from tests.vm import losses

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Layer:
    """The loss table's puzzle, built twice."""

    answers: dict[str, str]
    first: dict[str, Any]
    second: dict[str, Any]
    said: str
    home: Home
    puzzle: Path


@pytest.fixture(scope="module")
def layer(built: Home) -> Iterator[Layer]:
    """Build twice, boot once, look at every row."""
    folder = Path(tempfile.mkdtemp(prefix="bugbox-test-"))
    folder.chmod(0o711)
    for name in ("images", "kernels", "cache"):
        (folder / name).symlink_to(built.root / name)
    bugbox = Bugbox(folder)
    try:
        puzzle = losses.puzzle(bugbox, folder)
        manifests = []
        for _ in range(2):
            shutil.rmtree(bugbox.home.layers, ignore_errors=True)
            said = bugbox("build", str(puzzle), timeout=300).stderr.decode()
            (path,) = bugbox.home.layers.glob("*/manifest.json")
            manifests.append(json.loads(path.read_text()))
        answers = losses.answers(bugbox, bugbox.start(str(puzzle)))
        yield Layer(answers, manifests[0], manifests[1], said, bugbox.home, puzzle)
    finally:
        bugbox.end()
        shutil.rmtree(bugbox.home.runtime, ignore_errors=True)
        shutil.rmtree(folder)


@pytest.mark.parametrize("row", losses.ROWS, ids=lambda row: row.name)
def test_what_build_did_arrives(layer: Layer, row: losses.Row) -> None:
    assert layer.answers[row.name] == row.seen


def test_the_same_puzzle_twice_is_the_same_tar(layer: Layer) -> None:
    assert layer.first["tar"] == layer.second["tar"]


def test_what_no_tar_carries_is_named_with_what_to_do(layer: Layer) -> None:
    warnings = sorted(layer.first["warnings"])
    assert [warning.split(",")[0] for warning in warnings] == [
        "/srv/f/quiet has chattr's +A",
        "/srv/f/stuck has chattr's +i",
        "/srv/x/sock is a socket",
    ]
    assert "set it in break.sh (chattr +i /srv/f/stuck)" in warnings[1]
    for warning in warnings:
        assert f"warning: {warning}" in layer.said


def test_holes_take_no_room_in_the_tar(layer: Layer) -> None:
    assert layer.first["tar"]["size_bytes"] < 64 << 20


def test_a_container_makes_the_same_tar(
    layer: Layer, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine)
    image = store.find_base(layer.home)
    assert image is not None
    with built_in_container(layer.home, load(layer.puzzle), image) as made:
        head, _ = layer_file.verify(made.file)
    assert head.tar_sha256 == layer.first["tar"]["sha256"]
    assert sorted(made.warnings) == sorted(layer.first["warnings"])


@pytest.mark.skipif(
    not os.environ.get("BUGBOX_TEST_ALL"), reason="BUGBOX_TEST_ALL=1: each builder's own machine"
)
def test_the_table_of_both_builders(capsys: pytest.CaptureFixture[str]) -> None:
    assert losses.main() == 0, capsys.readouterr().out
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(losses.ROWS) + 2 and "| vm | docker |" in shown[0]
