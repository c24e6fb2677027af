# SPDX-License-Identifier: Apache-2.0
"""Packs, base images and a kernel in one file: what a room without a network needs to play.

What is loaded is believed as an installer would be: the base image and the kernel run in machines
only, but they run all of them. Files are checked against the digests in the bundle's own document.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import NotBuilt, UserError
from bugbox.events import step
from bugbox.host import proc
from bugbox.image import store
from bugbox.image.docker import FROM_BUNDLE
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import MANIFEST, Puzzle
from bugbox.session.builder import find_layer
from bugbox.session.packing import Added, add, pack
from bugbox.storage import file
from bugbox.storage.archive import ArchiveError, Limits
from bugbox.storage.pack_file import BUNDLE, PackWriter, extract, read_about

__all__ = ["Loaded", "bundle_load", "bundle_save"]

_LIMITS = Limits(bytes=32 << 30, apparent_bytes=32 << 30, members=200_000)
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{1,200}")
_TIMEOUT = 1800.0
#: Bytes that are written between two looks at how much room there is.
_LOOK = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What came out of a bundle."""

    kernel: str
    images: tuple[str, ...]
    puzzles: tuple[Added, ...]
    #: Names that come with bugbox: their packs were passed over.
    shipped: tuple[str, ...]


def bundle_save(
    home: Home, puzzles: Sequence[Puzzle], to: Path, *, for_learners: bool = False
) -> str:
    """Write a bundle of puzzles whose layers are built; return its SHA-256. NotBuilt, UserError."""
    if to.exists() or to.is_symlink():
        raise UserError(f"{to} is there already")
    if not to.absolute().parent.is_dir():
        raise UserError(f"{to}: no such folder")
    kernel = store.find_kernel(home)
    initrd = store.find_initrd(home, kernel) if kernel else None
    if kernel is None or initrd is None:
        raise NotBuilt("there is no kernel yet", hint="bugbox image build")
    images = {puzzle.base: _image(home, puzzle.base) for puzzle in puzzles}
    with file.workspace(home.tmp, "bundle") as work:
        about: dict[str, Any] = {
            "format": BUNDLE,
            "kernel": kernel.folder.name,
            "images": [image.folder.name for image in images.values()],
            "puzzles": [puzzle.name for puzzle in puzzles],
            "sha256": {},
        }
        parts: dict[str, Path] = {}
        for image in images.values():
            packed = work / f"{image.folder.name}.zst"
            with step(f"Pack base image {image.name}"):
                argv: list[str | Path] = ["zstd", "-q", "-6", "-T0", image.rootfs, "-o", packed]
                proc.run(argv, timeout=_TIMEOUT)
            parts[f"images/{image.folder.name}/rootfs.ext4.zst"] = packed
            parts[f"images/{image.folder.name}/manifest.json"] = image.folder / "manifest.json"
        for puzzle in puzzles:
            path = work / f"{puzzle.name}.bugbox"
            layer = find_layer(home, puzzle, images[puzzle.base])
            pack(home, puzzle, layer, path, for_learners=for_learners)
            parts[f"puzzles/{puzzle.name}.bugbox"] = path
        whole = parts | _files_below(kernel.folder, f"kernels/{kernel.folder.name}", _other(initrd))
        about["sha256"] = {name: file.digest(path) for name, path in whole.items()}
        made = work / "made"
        with made.open("wb") as out, step("Write the bundle"):
            writer = PackWriter(out, about)
            writer.tree(f"kernels/{kernel.folder.name}", kernel.folder, _other(initrd))
            for name, path in parts.items():
                writer.file(name, path)
            writer.close()
        digest = file.digest(made)
        shutil.move(made, to)
    return digest


def _image(home: Home, name: str) -> BuiltImage:
    image = store.find_base(home, name)
    if image is None:
        raise NotBuilt(f"the base image {name} is not built", hint=f"bugbox image build {name}")
    return image


def _other(initrd: Path) -> Callable[[str], bool]:
    """Leave initramfs of other versions of bugbox out."""
    return lambda name: name.startswith("initrd-") and name != initrd.name


def bundle_load(home: Home, source: Path) -> Loaded:
    """Take a bundle's kernel, base images and puzzles in; what is there already stays."""
    about = read_about(source, BUNDLE)
    kernel, images, names = _names(source, about)
    home.prepare()
    file.require_free(home.tmp, source.stat().st_size * 2, "loading a bundle")
    with file.workspace(home.tmp, "bundle") as work, step("Load the bundle"):
        extract(source, work / "in", _LIMITS)
        there = _files_below(work / "in" / "kernels" / kernel, f"kernels/{kernel}")
        for name in (*about["sha256"], *there):
            path, digest = work / "in" / name, about["sha256"].get(name)
            if not path.is_file() or file.digest(path) != digest:
                raise ArchiveError(f"{source}: {name} is damaged, or was changed")
        for name in images:
            _take_image(home, work / "in" / "images" / name, name)
        _take_kernel(home, work / "in" / "kernels" / kernel, kernel)
        added, shipped = [], []
        for name in names:
            if (shipped_puzzles() / name / MANIFEST).is_file():
                shipped.append(name)
            else:
                added.append(add(home, work / "in" / "puzzles" / f"{name}.bugbox"))
    return Loaded(kernel=kernel, images=tuple(images), puzzles=tuple(added), shipped=tuple(shipped))


def _names(source: Path, about: dict[str, Any]) -> tuple[str, list[str], list[str]]:
    """Read the document; every name in it is one of a folder, and nothing else."""
    kernel, images, names = about.get("kernel"), about.get("images"), about.get("puzzles")
    lists = [each for each in (images, names) if isinstance(each, list)]
    words = [kernel, *(word for each in lists for word in each)]
    good = all(isinstance(word, str) and _FOLDER.fullmatch(word) for word in words)
    sums = about.get("sha256")
    if len(lists) != 2 or not good or not isinstance(sums, dict):
        raise ArchiveError(f"{source}: it does not say what it holds")
    files = {name for name in sums if not _of_kernel(name, str(kernel))}
    if files != _files(lists[0], lists[1]):
        raise ArchiveError(f"{source}: it does not say what every file in it should be")
    return str(kernel), lists[0], lists[1]


def _files(images: Sequence[str], names: Sequence[str]) -> set[str]:
    found = {f"puzzles/{name}.bugbox" for name in names}
    for name in images:
        found |= {f"images/{name}/rootfs.ext4.zst", f"images/{name}/manifest.json"}
    return found


def _of_kernel(name: str, kernel: str) -> bool:
    """Whether a file's name is one below the kernel's folder, and plainly so."""
    parts = name.split("/")
    return parts[:2] == ["kernels", kernel] and not {"", ".", ".."} & {*parts}


def _files_below(
    folder: Path, name: str, leave_out: Callable[[str], bool] = lambda name: False
) -> dict[str, Path]:
    """Return the plain files of a folder, by their names in a bundle."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        f"{name}/{below}": path
        for below, path in sorted(paths.items())
        if path.is_file() and not path.is_symlink() and not leave_out(below)
    }


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"the base image {name} does not say what it is: {error}") from None
    if not isinstance(manifest, dict):
        raise ArchiveError(f"the base image {name} does not say what it is")
    return manifest


def _take_image(home: Home, folder: Path, name: str) -> None:
    manifest = _manifest(folder, name)
    packed, size = folder / "rootfs.ext4.zst", manifest.get("size_bytes")
    if not isinstance(size, int) or not 0 < size <= 64 << 30:
        raise ArchiveError(f"the base image {name} does not say how large it is")
    with (
        packed.open("rb") as source,
        proc.reading(["zstd", "-q", "-dc"], source=source, timeout=_TIMEOUT) as data,
        (folder / "rootfs.ext4").open("wb") as out,
    ):
        at = written = 0
        while piece := data.read(1 << 20):
            at += len(piece)
            if at > size:
                raise ArchiveError(f"the base image {name} is larger than it says")
            if piece.strip(b"\0"):
                written += len(piece)
                if written % _LOOK < len(piece):  # a few KiB may unpack to more than there is
                    file.require_free(folder, _LOOK, f"the base image {name}")
                out.write(piece)
            else:
                out.seek(at)  # a hole again
        out.truncate(at)
    if at < size:  # all of it was packed, holes as well
        raise ArchiveError(f"the base image {name} is smaller than it says")
    if file.digest(folder / "rootfs.ext4") != manifest.get("sha256"):
        raise ArchiveError(f"the base image {name} is damaged, or was changed")
    packed.unlink()
    (folder / "rootfs.ext4").chmod(0o444)
    (folder / FROM_BUNDLE).touch()
    file.publish(folder, home.images / name)


def _take_kernel(home: Home, folder: Path, name: str) -> None:
    if not (folder / "manifest.json").is_file():
        raise ArchiveError(f"the bundle has no kernel {name}")
    final = home.kernels / name
    if not final.is_dir():
        file.publish(folder, final)
        return
    for path in folder.glob("initrd-*.cpio"):
        if not (final / path.name).exists():
            file.publish(path, final / path.name)
