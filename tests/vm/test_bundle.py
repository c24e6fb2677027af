# SPDX-License-Identifier: Apache-2.0
"""A room without a network: a bundle is loaded into an empty home, and its puzzle plays."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bugbox.image import store
from bugbox.paths import Home
from tests.conftest import FACTOR, Bugbox

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a network namespace"),
]


def _without_network() -> list[str]:
    """Argv that runs what follows in a network namespace where nothing is, not even lo."""
    return ["unshare", "--net", "--"]


@dataclass(frozen=True)
class Room:
    """A state directory that was empty before the bundle came."""

    home: Home
    told: dict[str, Any]
    bundle: Path
    #: Where the bundle was made.
    outside: Home


@pytest.fixture(scope="module")
def room(built: Home) -> Iterator[Room]:
    """Save a bundle in one home, and load it in another, without a network."""
    folder = Path(tempfile.mkdtemp(prefix="bugbox-test-"))
    folder.chmod(0o711)
    for name in ("outside", "inside"):
        (folder / name).mkdir(mode=0o711)
    for name in ("images", "kernels", "layers", "cache"):
        (folder / "outside" / name).symlink_to(built.root / name)
    outside, inside = Bugbox(folder / "outside"), Bugbox(folder / "inside")
    try:
        outside("new", "roomy", cwd=folder)
        bundle = folder / "all.bugbox-bundle"
        outside("bundle", "save", str(bundle), str(folder / "roomy"), "read-me", timeout=600)
        told = json.loads(offline(inside.home, "bundle", "load", str(bundle), "--json"))
        yield Room(inside.home, told, bundle, outside.home)
        inside.end()
        outside.end()
    finally:
        for each in (inside, outside):
            shutil.rmtree(each.home.runtime, ignore_errors=True)
        shutil.rmtree(folder)


def offline(home: Home, *args: str, timeout: float = 300) -> str:
    done = subprocess.run(
        [*_without_network(), sys.executable, "-m", "bugbox", *args],
        env={**os.environ, "BUGBOX_HOME": str(home.root), "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout * FACTOR,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_loaded_bundle_is_all_that_is_needed(room: Room) -> None:
    home = room.home
    assert [each["name"] for each in room.told["puzzles"]] == ["roomy"]
    assert room.told["puzzles"][0]["layer"] == "unpacked" and room.told["shipped"] == ["read-me"]
    kernel, image = store.find_kernel(home), store.find_base(home)
    assert kernel is not None and store.find_initrd(home, kernel) is not None
    mine = store.find_base(room.outside)
    assert image is not None and mine is not None and image.digest == mine.digest
    assert image.rootfs.stat().st_blocks <= mine.rootfs.stat().st_blocks * 1.1, "holes are lost"
    assert "roomy" in offline(home, "list") and "roomy" in offline(home, "show", "roomy")


def test_loading_it_again_changes_nothing(room: Room) -> None:
    told = json.loads(offline(room.home, "bundle", "load", str(room.bundle), "--json"))
    assert told["puzzles"][0]["new"] is False


@pytest.mark.skipif(
    not os.environ.get("BUGBOX_TEST_ALL"), reason="takes a minute more: BUGBOX_TEST_ALL=1 runs it"
)
def test_its_puzzle_plays_without_a_network(room: Room) -> None:
    shown = offline(room.home, "play", "roomy", "--demo", timeout=900)
    assert "solved" in shown.lower()
