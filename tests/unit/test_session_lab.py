# SPDX-License-Identifier: Apache-2.0
"""What the lab carries: packed once, named by what is in it, and nothing that is not wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bugbox.errors import HostError
from bugbox.paths import Home
from bugbox.session import lab

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> list[tuple[str, Path]]:
    return sorted((f"in/{path.name}", path) for path in folder.iterdir())


def test_an_image_is_made_once_and_again_when_something_changed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    (source := tmp_path / "source").mkdir()
    (source / "one").write_text("one\n")
    (source / "link").symlink_to("one")
    first = lab._image(home, "tree", files(source), 16 << 20)
    assert lab._image(home, "tree", files(source), 16 << 20) == first
    (source / "one").write_text("other\n")
    second = lab._image(home, "tree", files(source), 16 << 20)
    assert second != first
    shown = ["/sbin/debugfs", "-R", "cat in/one", second]
    assert subprocess.run(shown, capture_output=True, check=True).stdout == b"other\n"  # type: ignore[arg-type]


def test_old_images_go(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"tree-{number}.ext4").touch()
    lab._forget_old(tmp_path, "tree")
    assert len(list(tmp_path.iterdir())) == 3


def test_the_checkout_goes_along_without_its_history() -> None:
    names = {name for name, _ in lab._tree()}
    assert f"{str(ROOT).lstrip('/')}/src/bugbox/session/lab.py" in names
    assert not any("/.git/" in name or "/.mypy_cache/" in name for name in names)
    assert lab.carries(ROOT / "tests") and not lab.carries(Path("/etc"))
    assert f"mount --bind /carried{ROOT} {ROOT}" in lab.mount_script()


def test_another_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(HostError, match=r"3\.11"):
        lab._check_python()
