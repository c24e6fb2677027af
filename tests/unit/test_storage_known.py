# SPDX-License-Identifier: Apache-2.0
"""Files whose digest is known by what stat tells of them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from bugbox.image import digest, initrd
from bugbox.image.kernel import BuiltKernel
from bugbox.puzzle import inputs
from bugbox.puzzle.definition import load
from bugbox.puzzle.scaffold import create
from bugbox.storage import known
from bugbox.storage.known import Known


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust what has only just been written."""
    monkeypatch.setattr(known, "_SETTLED_NS", -1 << 62)


def test_what_has_not_changed_is_worked_out_once(tmp_path: Path, settled: None) -> None:
    file, calls, known = tmp_path / "f", 0, Known()
    file.write_bytes(b"a")

    def work_out() -> str:
        nonlocal calls
        calls += 1
        return f"{calls}"

    assert [known.of([file], work_out) for _ in range(3)] == ["1"] * 3
    assert known.of([file], work_out, "also") == "2"
    file.write_bytes(b"longer")
    assert known.of([file], work_out) == "3"
    file.chmod(0o700)
    assert known.of([file], work_out) == "4"
    file.rename(tmp_path / "g")
    assert known.of([tmp_path / "g"], work_out) == "5"


def test_what_was_changed_a_moment_ago_is_worked_out_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a")
    known_, answers = Known(), iter("12")
    assert known_.of([tmp_path / "f"], lambda: next(answers)) == "1"
    later = Known()
    assert later.of([tmp_path / "f"], lambda: next(answers)) == "2"


def test_a_puzzle_is_hashed_once_and_again_when_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    create(tmp_path, "tidy-me")
    folder = tmp_path / "tidy-me"
    (folder / "files").mkdir(exist_ok=True)
    (folder / "files" / "data").write_bytes(b"one")
    packs, pack = [], inputs.pack
    monkeypatch.setattr(inputs, "pack", lambda *args: packs.append(args) or pack(*args))
    keys = [inputs.layer_key(load(folder), "base") for _ in range(3)]
    assert len(set(keys)) == 1 and len(packs) == 1
    (folder / "files" / "data").write_bytes(b"two!")
    assert inputs.layer_key(load(folder), "base") != keys[0]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    create(tmp_path, "tidy-me")
    folder = tmp_path / "tidy-me"
    (folder / "files").mkdir(exist_ok=True)
    with (folder / "files" / "large").open("wb") as large:
        large.truncate(48 << 20)
    puzzle = load(folder)
    tracemalloc.start()
    try:
        inputs.pack(puzzle, None)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_the_guests_programs_are_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    for name in ("lifeline", "bugbox"):
        (tmp_path / name).write_bytes(b"a program")
    monkeypatch.setenv("BUGBOX_GUEST_BIN", str(tmp_path))
    kernel = BuiltKernel(digest="d", folder=tmp_path / "kernel", release="6.1", packages=())
    hashed, of = [], digest.of
    monkeypatch.setattr(digest, "of", lambda parts: hashed.append(parts) or of(parts))
    first = [initrd.path(kernel) for _ in range(3)]
    assert len(set(first)) == 1 and len(hashed) == 1
    (tmp_path / "bugbox").write_bytes(b"another")
    assert initrd.path(kernel) != first[0]
