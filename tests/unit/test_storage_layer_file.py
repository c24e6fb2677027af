# SPDX-License-Identifier: Apache-2.0
"""A layer's file says what it is; a file that is damaged, changed or a trap is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bugbox.host import proc
from bugbox.storage.archive import ArchiveError, Limits
from bugbox.storage.layer_file import FORMAT, Head, read_head, verify, write
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry

HEAD = Head(
    puzzle="read-me",
    version="1",
    inputs="i" * 64,
    base="debian-12",
    base_digest="b" * 64,
    disk_bytes=2 << 30,
    tar_sha256="",
    tar_bytes=0,
    members=0,
)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return made(tmp_path, b"contents")


def made(folder: Path, contents: bytes, **changes: object) -> Path:
    """Write a layer of one file; `changes` are lies in its head."""
    out = io.BytesIO()
    tar = TarWriter(out)
    for entry in (folder_entry("."), folder_entry("srv")):
        tar.add(entry)
    tar.add(file_entry("srv/f", len(contents)), [contents])
    tar.close()
    truth = {"tar_sha256": tar.sha256.hexdigest(), "tar_bytes": tar.size, "members": 3}
    plain, path = folder / "layer.tar", folder / "puzzle.tar.zst"
    plain.write_bytes(out.getvalue())
    write(plain, path, dataclasses.replace(HEAD, **{**truth, **changes}))
    return path


def refused(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(ArchiveError) as caught:
        verify(path, limits or Limits())
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message


def test_a_layer_says_what_it_is(layer: Path) -> None:
    head, entries = verify(layer)
    assert head == read_head(layer)
    assert (head.puzzle, head.base, head.members) == ("read-me", "debian-12", 3)
    assert [entry.name for entry in entries] == [".", "srv", "srv/f"]
    assert [each.name for each in layer.parent.iterdir() if each != layer] == ["layer.tar"]


def test_zstd_and_tar_know_nothing_of_the_head(layer: Path) -> None:
    tar = (layer.parent / "layer.tar").read_bytes()
    assert proc.run(["zstd", "-dc", layer], timeout=30).stdout == tar
    listed = proc.run(["tar", "--zstd", "-tf", layer], timeout=30).stdout
    assert listed.split() == [b"./", b"srv/", b"srv/f"]


def test_the_reference_shows_the_head_as_it_is(layer: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/artefact.md").read_text()
    magic, size = struct.unpack("<II", layer.read_bytes()[:8])
    values = json.loads(layer.read_bytes()[8 : 8 + size])
    assert f"0x{magic:08X}" in page and FORMAT in page
    for key in values:
        assert f"| `{key}` |" in page, key


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ({"tar_sha256": "0" * 64}, "damaged, or changed after it was made"),
        ({"tar_bytes": 3}, "wrong about its size"),
        ({"members": 4}, "wrong about its size"),
    ],
)
def test_a_head_that_lies_is_refused(tmp_path: Path, lie: dict[str, object], said: str) -> None:
    assert said in refused(made(tmp_path, b"x", **lie))


def _headless(data: bytes) -> bytes:
    return data[8 + struct.unpack("<I", data[4:8])[0] :]


def _with_head(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:4] + struct.pack("<I", len(text)) + text + _headless(data)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: b"", "not a layer that bugbox made"),
        (_headless, "not a layer that bugbox made"),
        (lambda data: data[:4] + b"\xff\xff\xff\x7f" + data[8:], "not a layer"),
        (_with_head(b"[]"), "its head cannot be read"),
        (_with_head(b"{"), "its head cannot be read"),
        (_with_head(b'{"format": "bugbox layer 2"}'), "its format is not"),
        (_with_head(json.dumps({"format": FORMAT}).encode()), "puzzle is missing"),
        (lambda data: data[:30], "its head cannot be read"),
        (lambda data: data[:-9], "cut short|ends in the middle"),
        (lambda data: data[: -len(_headless(data)) // 2], "cut short|ends in the middle"),
        (lambda data: data[:-40] + bytes(40), "damaged|ends in the middle"),
        (lambda data: data + b"trailing", "damaged or cut short"),
    ],
)
def test_damage_is_seen(layer: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    layer.write_bytes(spoil(layer.read_bytes()))
    assert re.search(said, refused(layer))


def test_a_bomb_is_stopped_where_the_limit_is(tmp_path: Path) -> None:
    bomb = made(tmp_path, bytes(64 << 20))
    assert bomb.stat().st_size < 1 << 20
    assert "larger than 16 MiB" in refused(bomb, Limits(bytes=16 << 20))


def test_a_layer_is_packed_the_same_each_time(tmp_path: Path) -> None:
    digests = set()
    for n in range(2):
        (tmp_path / str(n)).mkdir()
        data = made(tmp_path / str(n), b"x" * 100_000).read_bytes()
        digests.add(hashlib.sha256(data).hexdigest())
    assert len(digests) == 1
