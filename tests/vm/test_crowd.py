# SPDX-License-Identifier: Apache-2.0
"""Many machines: what `make bench` does with them, each in small; in full with BUGBOX_TEST_ALL=1.

Only what does not depend on the host's speed is asserted: nobody is lost, nothing is left.
"""

import os
from pathlib import Path

import anyio
import pytest

from bench.crowd import Active, Burst, Crowd, Rounds
from bench.race import race
from bench.series import Series
from bugbox.config import load
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import load as load_puzzle
from bugbox.session import cloning, prepare

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

ALL = os.environ.get("BUGBOX_TEST_ALL") == "1"


@pytest.fixture(scope="module")
def templates(built: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template that all of them start from, made once."""
    folder = tmp_path_factory.mktemp("made")
    folder.chmod(0o711)
    for name in ("images", "kernels", "layers", "cache"):
        (folder / name).symlink_to(built.root / name)
    home = Home(folder)
    home.prepare()
    settings, wanted = load(home), load_puzzle(shipped_puzzles() / "read-me")
    parts = prepare.ensure(home, settings, wanted)
    assert anyio.run(cloning.warm, home, settings, wanted, parts)
    return folder / "templates"


def run(crowd: Crowd, templates: Path, rounds: int) -> dict[str, Series]:
    """The series by measure. A RuntimeError says that a machine did not do what it should."""
    crowd.templates = templates
    series = race([crowd], rounds, warmup=0)
    if series[0].note:
        pytest.skip(series[0].note)
    return {each.name.partition(".")[2]: each for each in series}


def test_rounds_leave_nothing_behind(templates: Path) -> None:
    """Processes, sockets, loop devices, mounts, files, and what the keeper has open."""
    count = 200 if ALL else 5
    found = run(Rounds(count), templates, count)
    assert len(found["as typed"].values) == count
    assert found["left behind"].values == [0]


def test_starts_at_once_all_come(templates: Path) -> None:
    count = 50 if ALL else 6
    found = run(Burst(count), templates, 1)
    assert found["did not come"].values == [0]
    assert len(found["as typed"].values) == count
    assert found["left behind"].values == [0]


def test_one_more_types_beside_busy_machines(templates: Path) -> None:
    """A keystroke of the one more comes back within a minute, or this fails by itself."""
    found = run(Active(30 if ALL else 3), templates, 200 if ALL else 25)
    assert set(found["lost"].values) == set(found["OOM kills"].values) == {0}
    # They were busy at each look; how busy is the host's speed, and its other work.
    assert min(found["CPU of all"].values) > 0
