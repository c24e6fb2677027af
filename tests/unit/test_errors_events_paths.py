# SPDX-License-Identifier: Apache-2.0
"""The foundation: error tree, events, file names."""

import errno
import inspect
from pathlib import Path

import pytest

from bugbox import errors, events
from bugbox.paths import Home

FUNCTIONS = {"by_kind", "of_the_host"}


def test_every_error_is_exported_and_found_by_name() -> None:
    classes = [
        c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert {c.__name__ for c in classes} | FUNCTIONS == set(errors.__all__)
    for c in classes:
        assert c.__doc__
        if c is not errors.CommandFailed:
            assert errors.by_kind(c.__name__) is c


def test_an_unknown_kind_is_still_an_error_of_ours() -> None:
    assert errors.by_kind("VersionSkewOfTheFuture") is errors.BugboxError
    assert errors.by_kind("Sequence") is errors.BugboxError


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    text = errors.__doc__ or ""
    for name in errors.__all__:
        if name not in FUNCTIONS:
            assert name in text, name


def test_a_full_disk_is_the_hosts_and_a_missing_file_is_nobodys_we_know() -> None:
    full = errors.of_the_host(OSError(errno.ENOSPC, "No space left on device", "/some/record"))
    assert full is not None and full.exit_status == 3
    assert full.message == "/some/record: No space left on device"
    assert errors.of_the_host(FileNotFoundError(errno.ENOENT, "No such file", "/x")) is None


def test_a_step_tells_start_end_and_error() -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append), pytest.raises(ValueError):
        with events.step("Work"):
            raise ValueError("broke")
    assert isinstance(seen[0], events.StepStarted)
    assert isinstance(seen[1], events.StepFinished) and seen[1].error == "broke"


def test_without_a_listener_nothing_happens() -> None:
    events.notice("nobody hears")


def test_an_interrupted_step_is_not_a_success() -> None:
    seen: list[events.Event] = []
    with events.listening(seen.append), pytest.raises(KeyboardInterrupt):
        with events.step("Work"):
            raise KeyboardInterrupt
    assert isinstance(seen[1], events.StepFinished) and seen[1].error == "interrupted"


def test_socket_paths_fit_whatever_the_home(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    paths = Home(deep).session("deleted-but-open-with-a-long-name-3f9k")
    assert len(bytes(paths.lifeline)) < 104


def test_two_homes_never_share_a_runtime_folder(tmp_path: Path) -> None:
    assert Home(tmp_path / "a").runtime != Home(tmp_path / "b").runtime


def test_a_runtime_folder_is_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "h")
    monkeypatch.setattr(Home, "runtime", tmp_path / "bugbox-1000" / "tag")
    home.prepare()
    home.runtime.parent.chmod(0o777)
    home.prepare()
    assert home.runtime.parent.stat().st_mode & 0o777 == 0o711
    monkeypatch.setattr("os.geteuid", lambda: 4_000_000)
    with pytest.raises(errors.HostError, match="bugbox-1000 belongs to somebody else"):
        home.prepare()


def test_a_link_is_no_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "h")
    monkeypatch.setattr(Home, "runtime", tmp_path / "bugbox-1000" / "tag")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bugbox-1000").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.HostError, match="belongs to somebody else"):
        home.prepare()


def test_making_a_home_touches_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path / "h")
    assert not home.root.exists()
    home.prepare()
    assert home.sessions.is_dir() and home.runtime.is_dir()
