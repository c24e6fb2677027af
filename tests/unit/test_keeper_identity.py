# SPDX-License-Identifier: Apache-2.0
"""Which keeper is the one that would be started now."""

import os
from pathlib import Path

import pytest

from bugbox import __version__
from bugbox.keeper import identity
from bugbox.keeper.identity import code_version, settings_digest
from bugbox.paths import Home


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "part" / "__pycache__").mkdir(parents=True)
    for name in ("a.py", "part/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(identity, "DATA", tmp_path)
    return tmp_path


def test_the_version_is_in_it() -> None:
    assert code_version().startswith(f"{__version__}+")
    assert code_version() == code_version()


@pytest.mark.parametrize("name", ["a.py", "part/b.py", "part/new.py"])
def test_an_edited_program_is_another(program: Path, name: str) -> None:
    before = code_version()
    (program / name).write_text("x = 22\n")
    assert code_version() != before


def test_an_edit_that_keeps_the_size_is_seen_by_its_time(program: Path) -> None:
    before = code_version()
    (program / "a.py").write_text("x = 2\n")
    os.utime(program / "a.py", ns=(1, 2))
    assert code_version() != before


def test_what_python_compiles_changes_nothing(program: Path) -> None:
    before = code_version()
    (program / "part" / "__pycache__" / "b.cpython-311.pyc").write_bytes(b"x")
    (program / "page.txt").write_text("text")
    assert code_version() == before


def test_settings_are_the_file_and_the_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    before = settings_digest(home)
    monkeypatch.setenv("BUGBOX_ESCAPE", "^T")
    monkeypatch.setenv("BUGBOX_PUZZLES", "/elsewhere")
    monkeypatch.setenv("BUGBOX_HOME", "/elsewhere")
    monkeypatch.setenv("BUGBOX_ACCEL", "")
    assert settings_digest(home) == before
    monkeypatch.setenv("BUGBOX_ACCEL", "tcg")
    with_variable = settings_digest(home)
    assert with_variable != before
    monkeypatch.delenv("BUGBOX_ACCEL")
    assert settings_digest(home) == before
    home.settings.write_text('accel = "tcg"\n')
    assert settings_digest(home) not in (before, with_variable)
