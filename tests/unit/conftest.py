# SPDX-License-Identifier: Apache-2.0
"""What every unit test leaves behind, unless this takes it away: the folder for sockets."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.paths import Home


@pytest.fixture(autouse=True)
def no_folders_for_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A state directory in a temporary folder has its other half outside of it."""
    made: set[Path] = set()
    prepare = Home.prepare

    def noted(home: Home) -> None:
        made.add(home.runtime)
        prepare(home)

    monkeypatch.setattr(Home, "prepare", noted)
    yield
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
