# SPDX-License-Identifier: Apache-2.0
"""The ways to make a disk, as values: tables, runs, scripts and what a machine is given."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from bugbox.errors import HostError
from bugbox.storage import mapper
from bugbox.storage.archive import Entry
from bugbox.storage.disks import copy
from bugbox.storage.disks.choose import STRATEGIES
from bugbox.storage.disks.layout import Place, Source
from bugbox.storage.disks.overlay import debugfs_script
from bugbox.storage.disks.snapshot import below
from bugbox.storage.extents import parse_map

BASE, LAYER = Path("/dev/loop0"), Path("/dev/loop1")
KIB = 1024


def test_the_base_alone_and_zeros_after_it() -> None:
    assert mapper.table(below(16 * KIB, (BASE, 8 * KIB), None)) == (
        "0 16 linear /dev/loop0 0\n16 16 zero\n"
    )


def test_the_layers_runs_lie_between_pieces_of_the_base() -> None:
    runs = [(4 * KIB, 4 * KIB), (16 * KIB, 4 * KIB)]
    assert mapper.table(below(32 * KIB, (BASE, 12 * KIB), (LAYER, runs))) == (
        "0 8 linear /dev/loop0 0\n"
        "8 8 linear /dev/loop1 8\n"
        "16 8 linear /dev/loop0 16\n"
        "24 8 zero\n"
        "32 8 linear /dev/loop1 32\n"
        "40 24 zero\n"
    )


def test_a_run_past_the_end_is_cut() -> None:
    runs = [(0, 8 * KIB), (12 * KIB, 64 * KIB)]
    assert sum(length for length, _ in below(8 * KIB, (BASE, 4 * KIB), (LAYER, runs))) == 16


def entry(start: int, length: int, *, present: bool, zero: bool = False) -> dict[str, object]:
    return {"start": start, "length": length, "present": present, "zero": zero, "depth": 0}


def test_a_map_becomes_runs() -> None:
    """Blocks made zero belong to the layer; those that are not there are the base's."""
    told = json.dumps(
        [
            entry(0, 100, present=False, zero=True),
            entry(100, 50, present=True),
            entry(150, 50, present=True, zero=True),
            entry(200, 100, present=False),
            entry(300, 10, present=True),
        ]
    )
    assert parse_map(told) == (310, ((100, 100), (300, 10)))


def test_a_map_with_a_gap_is_refused() -> None:
    told = json.dumps([entry(0, 10, present=True), entry(20, 10, present=True)])
    with pytest.raises(HostError, match="gaps"):
        parse_map(told)


def named(name: str) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | 0o644, uid=0, gid=0, mtime_ns=0)


def test_deletions_for_debugfs() -> None:
    entries = [named("etc/.wh.motd"), named("etc/old/.wh..wh..opq"), named("a"), named(".wh.b c")]
    assert debugfs_script(entries) == (
        'cd "/etc"\nmknod "motd" c 0 0\n'
        'ea_set "/etc/old" trusted.overlay.opaque y\n'
        'cd "/"\nmknod "b c" c 0 0\n'
    )


@pytest.mark.parametrize("name", ['.wh.a"b', ".wh.a\nrm x", ".wh.a\\b"])
def test_a_name_that_debugfs_would_misread_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="cannot be deleted"):
        debugfs_script([named(name)])


def test_what_a_machine_is_given() -> None:
    layers = Path("/layers")
    source = Source(
        base=Path("/base"), layer=layers / "p.qcow2", tar=layers / "p.tar.zst", size_bytes=1 << 30
    )
    place = Place(folder=Path("/s"), tag="bugbox-t-one")
    given = {name: way.layout(source, place) for name, way in STRATEGIES.items()}
    assert given["qcow2"].parts[0].path == Path("/s/disk.qcow2")
    assert given["qcow2"].parts[0].backing and given["qcow2"].parts[0].backing.backing
    assert given["snapshot"].parts[0].path == Path("/dev/mapper/bugbox-t-one-disk")
    assert given["snapshot"].parts[0].device
    assert [part.format for part in given["copy"].parts] == ["raw"]
    drives = [(part.path.name, part.read_only) for part in given["overlay"].parts]
    assert drives == [("base", True), ("layer.overlay.ext4", True), ("scratch.raw", False)]
    assert given["overlay"].kernel_args == ("bugbox.overlay=/dev/vdc,/dev/vdb,/dev/vda",)


def test_an_overlay_without_a_layer_has_two_drives() -> None:
    source = Source(base=Path("/base"), size_bytes=1 << 30)
    given = STRATEGIES["overlay"].layout(source, Place(folder=Path("/s"), tag="t"))
    assert given.kernel_args == ("bugbox.overlay=/dev/vdb,/dev/vda",)


def test_a_copy_between_two_filesystems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses some pairs of them."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    base, folder = tmp_path / "base", tmp_path / "session"
    folder.mkdir()
    with base.open("wb") as file:
        file.write(b"first" * 300_000)
        file.seek(5 << 20)
        file.write(b"last")
        file.truncate(6 << 20)
    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(copy, "reflinks", lambda *_: False)
    way = copy.Copy()
    place = Place(folder=folder, tag="x")
    way.make(Source(base=base, layer=None, tar=None, size_bytes=6 << 20), place)
    assert (folder / "disk.raw").read_bytes() == base.read_bytes()
