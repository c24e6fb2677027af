# SPDX-License-Identifier: Apache-2.0
"""What a layer changes, told beside what the base image has."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bugbox.cli.diff import changes
from bugbox.storage.archive import Entry
from bugbox.storage.base_files import BaseFile, look


def entry(name: str, mode: int = 0o100644, **more: object) -> Entry:
    return Entry(name=name, mode=mode, uid=0, gid=0, mtime_ns=0, **more)  # type: ignore[arg-type]


BASE = {
    "etc": BaseFile(mode=0o040755, uid=0, gid=0, size=4096),
    "etc/motd": BaseFile(mode=0o100644, uid=0, gid=0, size=5),
    "srv": BaseFile(mode=0o040755, uid=0, gid=0, size=4096),
}


def lines(*entries: Entry) -> list[tuple[str, str, str]]:
    return [(e["change"], e["path"], ", ".join(e["notes"])) for e in changes(entries, BASE)]


def test_added_changed_deleted() -> None:
    assert lines(
        entry(".", 0o040755),
        entry("etc", 0o040755),
        entry("etc/motd", 0o100600, size=7),
        entry("etc/.wh.issue"),
        entry("srv", 0o041777),
        entry("srv/.wh..wh..opq"),
        entry("srv/new", size=3, acls={"access": b"x"}, xattrs={"user.a": b"1"}),
        entry("srv/way", 0o120777, target="/etc"),
        entry("srv/same", link_to="srv/new"),
    ) == [
        ("M", "/etc/motd", "-rw-r--r-- → -rw-------, 5 → 7 bytes"),
        ("D", "/etc/issue", ""),
        ("M", "/srv", "drwxr-xr-x → drwxrwxrwt"),
        ("D", "/srv", "all that was in it"),
        ("A", "/srv/new", "-rw-r--r-- 0:0, access access list, user.a"),
        ("A", "/srv/way", "lrwxrwxrwx 0:0, leads to /etc"),
        ("A", "/srv/same", "-rw-r--r-- 0:0, another name of /srv/new"),
    ]


def test_a_real_image_is_read_without_mounting_it(tmp_path: Path) -> None:
    if shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("mke2fs is not installed")
    folder, image = tmp_path / "tree", tmp_path / "base.ext4"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b/file").write_text("12345")
    (folder / "a b/file").chmod(0o640)
    (folder / "link").symlink_to("a b/file")
    made = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", str(folder), str(image), "8m"]
    subprocess.run(made, check=True, timeout=60, capture_output=True)
    found = look(image, ["a b", "a b/file", "link", "nowhere", 'odd"name\n'])
    assert {path: oct(each.mode) for path, each in found.items()} == {
        "a b": oct(folder.joinpath("a b").stat().st_mode),
        "a b/file": "0o100640",
        "link": "0o120777",
    }
    assert found["a b/file"].size == 5
