# SPDX-License-Identifier: Apache-2.0
"""The folder of named network namespaces, which several processes prepare at once."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bugbox.host import libc
from bugbox.network import namespace


def test_the_folder_is_mounted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second mount over the first hides the namespaces in that."""
    many = 4
    mounts: list[str] = []
    seen = threading.local()
    together = threading.Barrier(many)

    def share(folder: str) -> None:
        if not getattr(seen, "once", False):
            seen.once = True
            together.wait(30)  # nobody has mounted before all have looked
            raise OSError(errno.EINVAL, "no mount")
        if not mounts:
            raise OSError(errno.EINVAL, "no mount")

    def mount(source: str, target: str) -> None:
        assert source == target == str(folder)
        mounts.append(target)

    folder = tmp_path / "netns"
    monkeypatch.setattr(namespace, "FOLDER", folder)
    monkeypatch.setattr(libc, "share_mounts", share)
    monkeypatch.setattr(libc, "bind_mount", mount)
    with ThreadPoolExecutor(many) as pool:
        for done in [pool.submit(namespace._prepare_folder) for _ in range(many)]:
            done.result(60)
    assert mounts == [str(folder)]


def test_what_else_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(namespace, "FOLDER", tmp_path / "netns")
    monkeypatch.setattr(libc, "share_mounts", refuse)
    with pytest.raises(PermissionError):
        namespace._prepare_folder()
