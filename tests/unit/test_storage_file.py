# SPDX-License-Identifier: Apache-2.0
"""Whole or not at all, also when the writer is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bugbox.errors import OutOfResources
from bugbox.events import Notice, listening
from bugbox.storage import file


def start(code: str, *args: object) -> subprocess.Popen[str]:
    """Run a piece of Python in a process of its own."""
    head = "import sys, time\nfrom pathlib import Path\nfrom bugbox.storage import file\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, args)], stdout=subprocess.PIPE, text=True
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


HOLD = """
with file.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_lock_is_waited_for_and_said(tmp_path):
    said = []
    with start(HOLD, tmp_path / "lock", 600) as other:
        assert first_line(other) == "held"

        def hear(event):
            said.append((event, other.poll()))
            other.kill()

        with listening(hear), file.locked(tmp_path / "lock", waiting="somebody builds it"):
            assert other.wait(20) != 0, "we have it, so its holder is gone"
    assert said == [(Notice(text="somebody builds it"), None)]


def test_a_free_lock_is_taken_without_a_word(tmp_path):
    said = []
    with listening(said.append), file.locked(tmp_path / "lock", waiting="wait"):
        with file.try_lock(tmp_path / "lock") as ours:
            assert not ours
    assert said == []
    with file.try_lock(tmp_path / "lock") as ours:
        assert ours


def test_a_lock_dies_with_its_holder(tmp_path):
    with start(HOLD, tmp_path / "lock", 60) as other:
        assert first_line(other) == "held"
        other.kill()
        other.wait()
        with file.try_lock(tmp_path / "lock") as ours:
            assert ours


BUILD = """
with file.workspace(Path(sys.argv[1]), "image") as work:
    (work / "half").write_text("x")
    print(work, flush=True)
    time.sleep(60)
"""


def test_sweep_spares_the_living_and_takes_the_dead(tmp_path):
    with start(BUILD, tmp_path) as other:
        work = Path(first_line(other))
        assert file.sweep(tmp_path) == []
        assert (work / "half").exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert file.sweep(tmp_path) == [work]
        assert not work.exists()


def test_a_workspace_is_gone_after_its_block(tmp_path):
    with pytest.raises(RuntimeError), file.workspace(tmp_path, "x") as work:
        (work / "deep").mkdir()
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_publish_moves_a_workspaces_result(tmp_path):
    with file.workspace(tmp_path, "x") as work:
        (work / "made").mkdir()
        (work / "made/a").write_text("1")
        file.publish(work / "made", tmp_path / "store/final")
    assert (tmp_path / "store/final/a").read_text() == "1"
    with file.workspace(tmp_path, "x") as work:
        (work / "made").mkdir()
        (work / "made/a").write_text("2")
        file.publish(work / "made", tmp_path / "store/final")
    assert (tmp_path / "store/final/a").read_text() == "1"


def test_write_replaces_whole_and_leaves_nothing_on_failure(tmp_path):
    target = tmp_path / "f"
    file.write(target, b"old")
    file.write(target, b"new", mode=0o600)
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        file.write(tmp_path / "folder", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "folder"]


def test_remove_tree_takes_locked_folders_and_spares_what_links_point_at(tmp_path):
    (tmp_path / "kept").mkdir()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(tmp_path / "kept")
    file.remove_tree(tree)
    assert not tree.exists()
    assert (tmp_path / "kept").is_dir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    file.remove_tree(tmp_path / "link")
    assert (tmp_path / "kept").is_dir()


def test_holes_take_no_space(tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as target:
        target.truncate(1 << 30)
        target.write(os.urandom(4096))
    assert 4096 <= file.allocated(tmp_path) < 1 << 20


def test_a_full_disk_is_said_with_numbers(tmp_path):
    with pytest.raises(OutOfResources, match=r"an image needs \d+ MiB in .* are free") as caught:
        file.require_free(tmp_path, 1 << 60, "an image")
    assert caught.value.exit_status == 3
    assert "BUGBOX_HOME" in (caught.value.hint or "")


def test_a_lock_that_its_holder_removed_is_not_had(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with file.try_lock(path) as ours:
        assert ours
        path.unlink()
        path.touch()  # another's by now
        with file.try_lock(path) as theirs:
            assert theirs
    opened = os.open

    def removed_meanwhile(name: Any, *args: Any) -> int:
        descriptor = opened(name, *args)
        Path(name).unlink()
        return descriptor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", removed_meanwhile)
        with file.try_lock(path) as ours:
            assert not ours


def test_sweep_makes_nothing_of_what_has_just_gone(tmp_path, monkeypatch):
    gone = tmp_path / "gone-1"
    listed = type(tmp_path).iterdir
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda folder: [*listed(folder), gone])
    assert file.sweep(tmp_path) == []
    assert not gone.exists()


def test_a_lock_that_is_not_made_is_not_ours(tmp_path):
    with file.try_lock(tmp_path / "no", create=False) as ours:
        assert not ours
    assert list(tmp_path.iterdir()) == []
