# SPDX-License-Identifier: Apache-2.0
"""A layer's tar is read, never trusted: what is refused, and what comes through whole."""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.host import proc
from bugbox.storage.archive import ArchiveError, Entry, Limits, members, scan

USUAL = Limits()


def tar(*members: tuple[str, bytes, dict[str, object]], pax: bytes = b"") -> bytes:
    """Write members in pax format: name, contents, and attributes of TarInfo."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return pax + out.getvalue()


def file(name: str, data: bytes = b"", **fields: object) -> tuple[str, bytes, dict[str, object]]:
    return name, data, fields


def folder(name: str) -> tuple[str, bytes, dict[str, object]]:
    return name, b"", {"type": tarfile.DIRTYPE, "mode": 0o755}


def read(data: bytes, limits: Limits = USUAL) -> list[Entry]:
    return list(scan(io.BytesIO(data), limits))


def refused(data: bytes, limits: Limits = USUAL) -> str:
    with pytest.raises(ArchiveError) as caught:
        read(data, limits)
    return caught.value.message


def test_everything_a_layer_holds_is_listed() -> None:
    entries = read(
        tar(
            folder("./"),
            folder("./srv"),
            file(
                "./srv/a",
                b"hello",
                mode=0o4640,
                uid=1000,
                gid=70000,
                mtime=1.5,
                pax_headers={"SCHILY.xattr.user.x": "y", "SCHILY.acl.access": "user::rw-"},
            ),
            file("./srv/b", type=tarfile.LNKTYPE, linkname="./srv/a"),
            file("./srv/c", type=tarfile.SYMTYPE, linkname="/nowhere/../else"),
            file("./srv/fifo", type=tarfile.FIFOTYPE),
            file("./srv/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        )
    )
    root, srv, a, b, c, fifo, null = entries
    assert (root.name, srv.name) == (".", "srv")
    assert stat.filemode(a.mode) == "-rwSr-----"
    assert (a.uid, a.gid, a.size, a.mtime_ns) == (1000, 70000, 5, 1_500_000_000)
    assert a.xattrs == {"user.x": b"y"}
    assert a.acls == {"access": b"user::rw-"}
    assert b.link_to == "srv/a"
    assert c.target == "/nowhere/../else"
    assert stat.S_ISFIFO(fifo.mode)
    assert null.device == (1, 3)


def test_deletions_say_what_they_hide() -> None:
    entries = read(
        tar(folder("etc"), file("etc/.wh.motd"), file("etc/.wh..wh..opq"), file(".wh.opt"))
    )
    assert [entry.hides for entry in entries] == [None, "etc/motd", "etc", "opt"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../etc/passwd", "not a plain name"),
        ("./a/../../b", "not a plain name"),
        ("a//b", "not a plain name"),
        ("a/./b", "not a plain name"),
        ("/etc/passwd", "an absolute name"),
        ("x" * 300, "longer than 255"),
        ("d/" * 3000 + "x", "a name of 6001 bytes"),
    ],
)
def test_names_that_leave_the_root_are_refused(name: str, said: str) -> None:
    assert said in refused(tar(file(name)))


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([file("a"), file("./a")], "twice"),
        ([folder("d"), folder("d/")], "twice"),
        ([file("s", type=tarfile.SYMTYPE, linkname="/etc"), file("s/passwd")], "below s"),
        ([file("f"), file("f/x")], "below f"),
        ([file("d/x"), folder("d")], "does not come before it"),
        ([file("h", type=tarfile.LNKTYPE, linkname="/etc/shadow")], "an absolute name"),
        ([file("h", type=tarfile.LNKTYPE, linkname="../../etc/shadow")], "not a plain name"),
        ([file("h", type=tarfile.LNKTYPE, linkname="later"), file("later")], "no file before it"),
        (
            [
                file("s", type=tarfile.SYMTYPE, linkname="/etc"),
                file("h", type=tarfile.LNKTYPE, linkname="s"),
            ],
            "no file before it",
        ),
        ([file("sda", type=tarfile.BLKTYPE, devmajor=8)], "a block device"),
        ([file("mem", type=tarfile.CHRTYPE, devmajor=1, devminor=1)], "1:1 is not allowed"),
        ([file("raw", type=tarfile.CHRTYPE)], "0:0 is not allowed"),
        ([file(".wh.x", b"data")], "must be an empty file"),
        ([file(".wh.x", type=tarfile.SYMTYPE, linkname="y")], "must be an empty file"),
        ([file(".wh.")], "deletes no name"),
        ([file(".wh...")], "deletes no name"),
        ([file(".wh..wh.plnk")], "not a deletion that we know"),
        ([file(".wh.x"), file("x")], "both deleted and written"),
        ([file("x"), file(".wh.x")], "both deleted and written"),
        (
            [file("x", pax_headers={"SCHILY.xattr.trusted.overlay.opaque": "y"})],
            "overlayfs' own",
        ),
        ([file("x", pax_headers={"GNU.sparse.major": "1"})], "not supported"),
        ([file("x", pax_headers={"GNU.sparse.size": "9"})], "not supported"),
        ([file("x", pax_headers={"SCHILY.acl.other": "y"})], "of an unknown kind"),
        ([file("x", type=b"S")], "not supported"),
        ([file("x", type=tarfile.CONTTYPE)], "not supported"),
    ],
)
def test_members_that_break_a_rule_are_refused(
    members: list[tuple[str, bytes, dict[str, object]]], said: str
) -> None:
    assert said in refused(tar(*members))


def sparse(name: str, real: int, *areas: tuple[int, int], spoilt: bytes = b"") -> bytes:
    """Write one file with holes as GNU tar does in its format 1.0."""
    numbers = [len(areas), *(number for area in areas for number in area)]
    table = spoilt or b"".join(b"%d\n" % number for number in numbers)
    table += bytes(-len(table) % 512)
    data = b"".join(bytes([65 + n]) * length for n, (_, length) in enumerate(areas))
    pax = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(real),
    }
    return tar(file("GNUSparseFile.1/x", table + data, pax_headers=pax), file("after", b"x"))


def test_a_file_with_holes_is_read_as_the_file_it_is() -> None:
    source = io.BytesIO(sparse("d", 10_000, (0, 4), (5000, 700), (9_999, 1)))
    (entry, contents), (after, _) = [(e, b"".join(c)) for e, c in members(source)]
    assert (entry.name, entry.size, after.name) == ("d", 10_000, "after")
    assert entry.data == ((0, 4), (5000, 700), (9_999, 1))
    assert contents == b"AAAA" + bytes(4996) + b"B" * 700 + bytes(4299) + b"C"


def test_a_file_that_is_all_hole() -> None:
    for data in (sparse("d", 3 << 20), sparse("d", 3 << 20, (3 << 20, 0))):
        ((entry, contents), _) = [(e, b"".join(c)) for e, c in members(io.BytesIO(data))]
        assert (entry.size, entry.data, contents) == (3 << 20, (), bytes(3 << 20))


def test_what_gnu_tar_writes_of_holes_is_understood(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as out:
        out.truncate(50 << 20)
        for at in range(1, 45):  # a map of more than one block
            out.seek(at << 20)
            out.write(b"%d" % at)
    argv = ["tar", "-C", tmp_path, "--format=posix", "--sparse", "-cf", "-", "file"]
    written = proc.run(argv, timeout=60).stdout
    assert len(written) < 1 << 20
    ((entry, contents),) = [(e, b"".join(c)) for e, c in members(io.BytesIO(written))]
    assert entry.name == "file" and entry.data is not None and len(entry.data) == 44
    assert contents == path.read_bytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (sparse("../d", 10, (0, 4)), "not a plain name"),
        (sparse("d", 10, (0, 4), (2, 4)), "makes no sense"),
        (sparse("d", 10, (8, 4)), "makes no sense"),
        (sparse("d", 10, (4, 1), (0, 1)), "makes no sense"),
        (sparse("d", 10, (0, 9), spoilt=b"1\n0\n8\n"), "does not fit its data"),
        (sparse("d", 10, spoilt=b"200000\n"), "more than 100000 pieces"),
        (sparse("d", 10, spoilt=b"9\n"), "has no end"),
        (sparse("d", 10, spoilt=b"-1\n"), "a number that is none"),
        (sparse("d", 10, spoilt=b"1" * 2000), "makes no sense"),
        (sparse("d", 10 << 30, (0, 1)), "larger than 8192 MiB"),
    ],
)
def test_a_map_of_holes_that_lies_is_refused(data: bytes, said: str) -> None:
    assert said in refused(data)


def test_contents_that_nobody_reads_are_skipped_and_bounded_parts_too() -> None:
    source = io.BytesIO(tar(file("a", b"x" * 5000), file("b", b"y" * 3_000_000), file("c", b"z")))
    seen = []
    for entry, contents in members(source):
        seen.append((entry.name, len(next(contents))))
    assert seen == [("a", 5000), ("b", 1 << 20), ("c", 1)]


def test_limits_bind() -> None:
    many = tar(*(file(f"f{n}") for n in range(20)))
    assert "more than 10 members" in refused(many, Limits(members=10))
    large = tar(file("f", bytes(3 << 20)))
    assert "too long together" in refused(many, Limits(all_name_bytes=20))
    assert "larger than 1 MiB" in refused(large, Limits(bytes=1 << 20))
    assert len(read(large)) == 1


def test_a_lie_about_a_size_costs_no_memory() -> None:
    """A header that announces 8 GiB of pax records is refused before anything is read for it."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0o77777777777
    lie = info.tobuf(tarfile.USTAR_FORMAT)

    class Endless(io.RawIOBase):
        asked = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.asked = max(self.asked, size)
            return lie if size == 512 else bytes(size)

    source = Endless()
    with pytest.raises(ArchiveError, match="a pax header of 8589934591 bytes"):
        list(scan(source))  # type: ignore[arg-type]
    assert source.asked == 512


def _cut(data: bytes) -> bytes:
    return data[:700]


def _flip(data: bytes) -> bytes:
    return data[:10] + b"!" + data[11:]


def _append(data: bytes) -> bytes:
    return data + b"more"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_cut, "ends in the middle"),
        (_flip, "checksum is wrong"),
        (_append, "goes on after its end"),
    ],
)
def test_damage_is_seen(spoil: Callable[[bytes], bytes], said: str) -> None:
    assert said in refused(spoil(tar(file("some-name-here", b"x" * 600))))


@pytest.mark.parametrize(
    "record",
    [
        b"12 path=a",
        b"5 a=b\n",
        b"x path=a\n",
        b"99 path=a\n",
        b"0 path=a\n",
        b"8 patha\n",
        b"-1 a=b\n",
    ],
)
def test_pax_records_that_lie_are_refused(record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(record)
    pax = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    refused(tar(file("y"), pax=pax))


def test_a_global_record_is_refused() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "z"}):
        pass
    assert "not supported" in refused(out.getvalue())


def test_not_a_tar() -> None:
    assert "not a tar" in refused(b"#!/bin/sh\n".ljust(1024, b"x"))
    assert "ends in the middle" in refused(b"")


@given(st.binary(max_size=2048))
def test_noise_is_refused_or_read_but_never_crashes(noise: bytes) -> None:
    good = tar(folder("d"), file("d/f", b"contents"))
    spoilt = bytes(a ^ b for a, b in zip(good, noise.ljust(len(good), b"\0"), strict=False))
    try:
        names = [entry.name for entry in read(spoilt)]
    except ArchiveError:
        return
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
