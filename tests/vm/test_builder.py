# SPDX-License-Identifier: Apache-2.0
"""Building a layer: what goes wrong is told and leaves nothing (test_layer: what arrives)."""

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import FACTOR, Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


@pytest.fixture
def layers(bugbox: Bugbox) -> Path:
    """A folder of layers of this test's own: it counts and removes them."""
    bugbox.home.layers.unlink()
    bugbox.home.layers.mkdir()
    return bugbox.home.layers


def small(bugbox: Bugbox, folder: Path, build: str, more: str = "") -> Path:
    bugbox("new", "small", cwd=folder)
    puzzle = folder / "small"
    (puzzle / "build.sh").write_text(f"#!/bin/sh\n{build}\n")
    with (puzzle / "puzzle.yaml").open("a") as manifest:
        manifest.write(more)
    return puzzle


def manifests(layers: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in layers.glob("*/manifest.json")]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("echo the reason; exit 3", ("build.sh", "3", "the reason")),
        ("sleep 1000", ("build.sh", "did not end within 10s")),
        (
            "dd if=/dev/zero of=/fill bs=1M",
            ("filled the disk of 1100 MiB", "No space left"),
        ),
    ],
    ids=["fails", "never ends", "fills the disk"],
)
def test_a_bad_build_is_told_and_leaves_nothing(
    bugbox: Bugbox, layers: Path, tmp_path: Path, build: str, words: tuple[str, ...]
) -> None:
    more = "machine: {disk: 1100MiB}\n" + ("build: {timeout: 10s}\n" if "sleep" in build else "")
    puzzle = small(bugbox, tmp_path, build, more)
    done = bugbox("build", str(puzzle), ok=(1,), timeout=300)
    for word in words:
        assert word in done.stderr.decode()
    assert list(layers.iterdir()) == []
    assert list(bugbox.home.sessions.iterdir()) == []


def test_two_builds_at_once_build_once(bugbox: Bugbox, layers: Path, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, "sleep 2; echo here I build; date +%N >/srv/when")
    both = [bugbox.popen("build", str(puzzle)) for _ in range(2)]
    said = []
    for one in both:
        _, err = one.communicate(timeout=120 * FACTOR)
        assert one.returncode == 0, err
        said.append(err)
    assert sorted("here I build" in err for err in said) == [False, True], said
    assert sorted("waiting for it" in err for err in said) == [False, True], said
    assert len(manifests(layers)) == 1


def test_ctrl_c_takes_everything_back(bugbox: Bugbox, layers: Path, tmp_path: Path) -> None:
    puzzle = small(bugbox, tmp_path, "echo now; sleep 60")
    building = bugbox.popen("build", str(puzzle))
    assert building.stderr
    for line in building.stderr:
        if "| now" in line:
            break
    machines = bugbox.machines()
    assert len(machines) == 1, machines
    building.send_signal(signal.SIGINT)
    _, err = building.communicate(timeout=60 * FACTOR)
    assert building.returncode == 130, err
    assert not Path(f"/proc/{machines[0]}").exists(), "the build machine still runs"
    assert list(layers.iterdir()) == [], "a half-built layer is left"
    assert not [p for p in bugbox.home.tmp.iterdir() if p.is_dir()], "a workspace is left"
    assert list(bugbox.home.sessions.iterdir()) == [], "a record is left"
