# SPDX-License-Identifier: Apache-2.0
"""Bundles from strangers: what is damaged, too much or somewhere else is refused, and nothing kept.

What the tar's own rules refuse (names, links, duplicates, devices, holes) has a test for each in
test_storage_archive; here some of them come in a whole bundle, as `bundle load` meets them.
"""

import dataclasses
import hashlib
import io
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bugbox.errors import BugboxError, OutOfResources, UserError
from bugbox.paths import Home
from bugbox.session import bundle as module
from bugbox.session.bundle import bundle_load
from bugbox.storage import file
from bugbox.storage.archive import ArchiveError
from bugbox.storage.entry import Entry
from bugbox.storage.pack_file import BUNDLE, PackWriter
from bugbox.storage.tar_writer import file_entry

KERNEL, IMAGE = "6.1.0-1", "debian-12-0123"
ROOTFS = b"x" * 4096 + bytes(8192) + b"y" * 4096


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def packed(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def good() -> dict[str, bytes]:
    manifest = {
        "size_bytes": len(ROOTFS),
        "sha256": hashlib.sha256(ROOTFS).hexdigest(),
    }
    return {
        f"kernels/{KERNEL}/manifest.json": b"{}",
        f"kernels/{KERNEL}/vmlinux": b"kernel",
        f"images/{IMAGE}/rootfs.ext4.zst": packed(ROOTFS),
        f"images/{IMAGE}/manifest.json": json.dumps(manifest).encode(),
    }


def bundle(
    tmp_path: Path,
    files: dict[str, bytes] | None = None,
    *entries: tuple[Entry, bytes],
    sums: dict[str, str] | None = None,
    **about: Any,
) -> Path:
    """Write a bundle: the digests are those of `files` but for those in `sums`."""
    files = good() if files is None else files
    right = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    said = {
        "format": BUNDLE, "kernel": KERNEL, "images": [IMAGE], "puzzles": [],
        "sha256": right | (sums or {}),
    }  # fmt: skip
    out = io.BytesIO()
    writer = PackWriter(out, said | about)
    for name, data in files.items():
        writer.data(name, data)
    for entry, data in entries:
        writer._tar.add(entry, [data] if data else ())
    writer.close()
    path = tmp_path / "strange.bugbox-bundle"
    path.write_bytes(out.getvalue())
    return path


def refused(home: Home, path: Path) -> BugboxError:
    with pytest.raises(BugboxError) as caught:
        bundle_load(home, path)
    for folder in (home.images, home.kernels, home.puzzles):
        assert not folder.exists() or list(folder.iterdir()) == []
    assert [each.name for each in home.tmp.iterdir() if each.is_dir()] == []
    return caught.value


def test_a_good_one_is_taken_in_with_its_holes(home: Home, tmp_path: Path) -> None:
    loaded = bundle_load(home, bundle(tmp_path))
    assert (loaded.kernel, loaded.images, loaded.puzzles) == (KERNEL, (IMAGE,), ())
    assert (home.images / IMAGE / "rootfs.ext4").read_bytes() == ROOTFS
    assert (home.kernels / KERNEL / "vmlinux").read_bytes() == b"kernel"


@pytest.mark.parametrize("name", good())
def test_a_wrong_digest_is_refused_whatever_it_is_of(home: Home, tmp_path: Path, name: str) -> None:
    """The kernel's too: it is what every machine runs."""
    error = refused(home, bundle(tmp_path, sums={name: "0" * 64}))
    assert f"{name} is damaged, or was changed" in error.message


def test_a_kernels_file_without_a_digest_is_refused(home: Home, tmp_path: Path) -> None:
    extra = f"kernels/{KERNEL}/initrd-1.cpio"
    path = bundle(tmp_path, None, (file_entry(extra, 1), b"x"))
    assert f"{extra} is damaged, or was changed" in refused(home, path).message


@pytest.mark.parametrize(
    "about",
    [
        {"kernel": "../x"},
        {"kernel": None},
        {"images": ["/etc"]},
        {"images": IMAGE},
        {"puzzles": ["a/b"]},
        {"puzzles": [7]},
        {"sha256": []},
        {"sha256": {}},
        {"sha256": {"../../etc/passwd": "0"}},
        {"sha256": {f"kernels/{KERNEL}/../../../x": "0"}},
    ],
    ids=str,
)
def test_what_it_says_of_itself_leads_nowhere_else(
    home: Home, tmp_path: Path, about: dict[str, Any]
) -> None:
    assert isinstance(refused(home, bundle(tmp_path, **about)), ArchiveError)


LINK = dataclasses.replace(file_entry("images/way", 0), mode=stat.S_IFLNK | 0o777, target="/tmp")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([(file_entry("../out", 1), b"x")], "not a plain name"),
        ([(file_entry("/tmp/out", 1), b"x")], "an absolute name"),
        ([(LINK, b""), (file_entry("images/way/out", 1), b"x")], "a symbolic link"),
        ([(file_entry("twice", 1), b"x"), (file_entry("twice", 1), b"y")], "twice"),
        (
            [(dataclasses.replace(file_entry("n", 0), mode=stat.S_IFCHR, device=(1, 3)), b"")],
            "neither",
        ),
        ([(dataclasses.replace(file_entry("p", 0), mode=stat.S_IFIFO | 0o600), b"")], "neither"),
        ([(dataclasses.replace(file_entry("h", 0), link_to="bugbox.json"), b"")], "neither"),
        ([(file_entry(".wh.x", 0), b"")], "neither"),
    ],
    ids=["up", "absolute", "through a link", "twice", "device", "fifo", "hard link", "deletion"],
)
def test_members_that_have_no_place_in_it(
    home: Home, tmp_path: Path, entries: list[tuple[Entry, bytes]], said: str
) -> None:
    assert said in refused(home, bundle(tmp_path, None, *entries)).message
    assert not (tmp_path / "out").exists() and not Path("/tmp/out").exists()


def image(**manifest: Any) -> dict[str, bytes]:
    said = json.loads(good()[f"images/{IMAGE}/manifest.json"]) | manifest
    return good() | {f"images/{IMAGE}/manifest.json": json.dumps(said).encode()}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (image(size_bytes=100), "larger than it says"),
        (image(size_bytes=1 << 50), "does not say how large"),
        (image(size_bytes=-1), "does not say how large"),
        (image(size_bytes="16"), "does not say how large"),
        (image(size_bytes=10 << 30), "smaller than it says"),  # 10 GiB of hole
        (image(sha256="0" * 64), "damaged, or was changed"),
        (good() | {f"images/{IMAGE}/manifest.json": b"[1]"}, "does not say what it is"),
        (good() | {f"images/{IMAGE}/manifest.json": b"["}, "does not say what it is"),
        (good() | {f"images/{IMAGE}/manifest.json": b"[" * 99_999}, "does not say what it is"),
        (good() | {f"images/{IMAGE}/rootfs.ext4.zst": packed(ROOTFS)[:-9]}, "zstd"),
        (good() | {f"images/{IMAGE}/rootfs.ext4.zst": b"no zstd at all"}, "zstd"),
    ],
    ids=range(11),
)
def test_an_image_that_is_not_what_it_says(
    home: Home, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    assert said in refused(home, bundle(tmp_path, files)).message


def test_a_bomb_ends_where_the_disk_would(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few KiB that unpack to more than there is room for."""
    asked: list[int] = []

    def full(folder: Path, size: int, what: str) -> None:
        asked.append(size)
        if len(asked) > 3:
            raise OutOfResources(f"{what} needs more than there is")

    monkeypatch.setattr(module, "_LOOK", 4 << 20)
    monkeypatch.setattr(file, "require_free", full)
    files = image(size_bytes=60 << 30)
    files[f"images/{IMAGE}/rootfs.ext4.zst"] = packed(b"x" * (64 << 20))
    path = bundle(tmp_path, files)
    assert path.stat().st_size < 1 << 20
    assert isinstance(refused(home, path), OutOfResources)
    assert len(asked) == 4


def test_a_bundle_without_its_kernel(home: Home, tmp_path: Path) -> None:
    files = {name: data for name, data in good().items() if not name.startswith("kernels/")}
    with pytest.raises(ArchiveError, match="has no kernel"):
        bundle_load(home, bundle(tmp_path, files))


def test_a_truncated_bundle(home: Home, tmp_path: Path) -> None:
    path = bundle(tmp_path)
    data = path.read_bytes()
    for cut in (0, 100, 600, len(data) // 2, len(data) - 1024):
        path.write_bytes(data[:cut])
        assert isinstance(refused(home, path), (ArchiveError, UserError))
