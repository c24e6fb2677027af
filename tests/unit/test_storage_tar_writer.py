# SPDX-License-Identifier: Apache-2.0
"""What we write as a tar, others read as the same: GNU tar, Python, and our own reader."""

from __future__ import annotations

import dataclasses
import io
import stat
import tarfile
from pathlib import Path

import pytest

from bugbox.host import proc
from bugbox.storage import acl
from bugbox.storage.archive import ArchiveError, Entry, members
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry

ENTRIES = [
    folder_entry("."),
    folder_entry("d", when=1_704_067_200),
    dataclasses.replace(
        file_entry("d/f", 5),
        mode=stat.S_IFREG | 0o4755,
        uid=1000,
        gid=3_000_000,
        mtime_ns=1_500_000_007,
        xattrs={"user.bytes": b"\x00\xff\n=", "security.capability": b"\x01"},
        acls={"access": b"user::rw-\nuser:7:r--\n"},
    ),
    Entry(name="d/again", mode=stat.S_IFREG | 0o644, uid=0, gid=0, mtime_ns=0, link_to="d/f"),
    Entry(name="d/link", mode=stat.S_IFLNK | 0o777, uid=0, gid=0, mtime_ns=-5, target="/x" * 80),
    Entry(name="d/null", mode=stat.S_IFCHR | 0o666, uid=0, gid=0, mtime_ns=0, device=(1, 3)),
    Entry(name="d/pipe", mode=stat.S_IFIFO | 0o600, uid=0, gid=0, mtime_ns=-(10**9) - 1),
    file_entry("d/" + "n" * 255, 0),
    file_entry("d/not-utf8-\udcff", 600),
]


def written() -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out)
    for entry in ENTRIES:
        tar.add(entry, [b"x" * entry.size] if entry.size else ())
    tar.close()
    assert tar.size == len(out.getvalue())
    return out.getvalue()


def test_our_reader_reads_what_our_writer_writes() -> None:
    read = [(entry, b"".join(data)) for entry, data in members(io.BytesIO(written()))]
    assert [entry for entry, _ in read] == ENTRIES
    assert read[2][1] == b"xxxxx"


def test_gnu_tar_and_python_read_it_too(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(written())
    listed = proc.run(["tar", "--numeric-owner", "-tvf", path], timeout=30)
    assert listed.stderr == ""
    assert b"-rwsr-xr-x 1000/3000000" in listed.stdout and b"1,3" in listed.stdout
    with tarfile.open(path) as tar:
        assert len(tar.getmembers()) == len(ENTRIES)
        assert tar.getmember("d/f").mtime == pytest.approx(1.500000007)


def test_the_wrong_amount_of_contents_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="3 bytes instead of 5"):
        TarWriter(io.BytesIO()).add(file_entry("f", 5), [b"abc"])


LIST = b"user::rw-\nuser:7:r--\nuser:1000:---\ngroup::r-x\ngroup:4:rwx\nmask::rwx\nother::---\n"


def test_access_control_lists_go_there_and_back() -> None:
    value = acl.to_attribute(LIST)
    assert value[:12] == bytes([2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255])
    assert acl.from_attribute(value) == LIST
    assert acl.to_attribute(LIST.replace(b"\n", b",")) == value


def test_an_access_control_list_is_the_kernels_own(tmp_path: Path) -> None:
    """What setfacl sets and the kernel holds is what we make of getfacl's text."""
    file = tmp_path / "f"
    file.touch(0o640)
    proc.run(["setfacl", "-m", "u:424242:rwx,g:434343:r--", file], timeout=30)
    text = proc.run(["getfacl", "-cnp", file], timeout=30).stdout
    tar = proc.run(["tar", "--acls", "--format=posix", "-C", tmp_path, "-cf", "-", "f"], timeout=30)
    ((entry, _),) = members(io.BytesIO(tar.stdout))
    value = proc.run(
        ["getfattr", "--only-values", "-n", acl.ATTRIBUTES["access"], file], timeout=30
    ).stdout
    assert acl.to_attribute(text) == value
    assert acl.from_attribute(value).split() == text.split()
    assert entry.acls["access"].count(b"user:") == 2


@pytest.mark.parametrize(
    "text", [b"user:bob:rw-", b"nobody::rw-", b"user::rwxx", b"mask:3:r--", b"user:9999999999:r--"]
)
def test_a_list_by_names_or_nonsense_is_refused(text: bytes) -> None:
    with pytest.raises(ArchiveError):
        acl.to_attribute(text)


@pytest.mark.parametrize(
    "value",
    [b"", b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0" + b"\x40" * 8, b"\x02\0\0\0\x01\0\x09\0AAAA"],
)
def test_an_attribute_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(ArchiveError):
        acl.from_attribute(value)
