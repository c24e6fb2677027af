# SPDX-License-Identifier: Apache-2.0
"""Build puzzles' layers in machines of their own, once, and keep them by what they were made of.

What comes out of a build machine is not trusted: the tar is read through before it is published,
and nothing of it is ever extracted or mounted on the host.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import anyio

from bugbox.config import Settings
from bugbox.errors import BuildFailed
from bugbox.events import notice, step
from bugbox.host import proc
from bugbox.host.bridge import held, in_thread
from bugbox.image.kernel import BuiltKernel
from bugbox.image.rootfs import BuiltImage
from bugbox.machine.driver import Driver
from bugbox.paths import Home
from bugbox.puzzle.build import build
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.inputs import layer_key, pack
from bugbox.session.build_machine import build_machine, while_it_runs
from bugbox.storage import disk, file
from bugbox.storage.archive import ArchiveError, Limits, scan

__all__ = ["BuiltLayer", "ensure_layer", "find_layer"]

_FORMAT = 1
#: The build machine's disks at the start, and the tar of an ordinary puzzle.
_NEEDS = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer in the store."""

    key: str
    folder: Path
    #: Size of the disk the guest sees.
    size_bytes: int
    #: SHA-256 of the uncompressed tar: the same for the same puzzle on the same base.
    tar_sha256: str
    base_digest: str

    @property
    def tar(self) -> Path:
        """The portable form, zstd."""
        return self.folder / "puzzle.tar.zst"

    @property
    def disk(self) -> Path:
        """The same as a qcow2 over the base image."""
        return self.folder / "puzzle.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a layer is built from and with."""

    home: Home
    settings: Settings
    puzzle: Puzzle
    image: BuiltImage
    kernel: BuiltKernel
    initrd: Path
    driver: Driver


def find_layer(home: Home, puzzle: Puzzle, image: BuiltImage) -> BuiltLayer | None:
    """Return the puzzle's layer as the puzzle is now; None when it has to be built first."""
    return _load(home, layer_key(puzzle, image.digest))


async def ensure_layer(
    home: Home,
    settings: Settings,
    puzzle: Puzzle,
    image: BuiltImage,
    kernel: BuiltKernel,
    initrd: Path,
    driver: Driver,
) -> BuiltLayer:
    """Return the puzzle's layer; build it when it is missing.

    When two want the same puzzle, one builds and the other waits. BuildFailed has build.sh's
    output. Whatever goes wrong or is cancelled, the store has a whole layer or none.
    """
    key = await in_thread(layer_key, puzzle, image.digest)
    found = _load(home, key)
    if found is not None:
        return found
    await in_thread(home.prepare)
    parts = _Parts(
        home=home,
        settings=settings,
        puzzle=puzzle,
        image=image,
        kernel=kernel,
        initrd=initrd,
        driver=driver,
    )
    async with _alone(home, puzzle.name):
        return _load(home, key) or await _build(parts, key)


def _load(home: Home, key: str) -> BuiltLayer | None:
    folder = home.layers / key
    try:
        values = json.loads((folder / "manifest.json").read_bytes())
        layer = BuiltLayer(
            key=key,
            folder=folder,
            size_bytes=values["disk"]["size_bytes"],
            tar_sha256=values["tar"]["sha256"],
            base_digest=values["base"]["digest"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return layer if values.get("format") == _FORMAT else None


@asynccontextmanager
async def _alone(home: Home, name: str) -> AsyncIterator[None]:
    """Hold the lock for building `name`; a wait for it can be cancelled."""
    path = home.tmp / f".layer-{name}.lock"
    told = False
    while True:
        with file.try_lock(path) as ours:
            if ours:
                yield
                return
        if not told:
            notice(f"another bugbox is building {name}: waiting for it")
            told = True
        await anyio.sleep(0.2)


async def _build(parts: _Parts, key: str) -> BuiltLayer:
    home, puzzle = parts.home, parts.puzzle
    with step(f"Build puzzle {puzzle.name}"):
        await in_thread(file.sweep, home.tmp)
        await in_thread(file.require_free, home.tmp, _NEEDS, f"building {puzzle.name}")
        async with held(file.workspace(home.tmp, "layer")) as work:
            made = work / "layer"
            made.mkdir()
            tar = work / "puzzle.tar"
            await in_thread(
                disk.create_overlay,
                made / "puzzle.qcow2",
                backing=parts.image.rootfs,
                backing_format="raw",
                size_bytes=puzzle.manifest.machine.disk,
            )
            if puzzle.build is None:
                tarfile.open(tar, "w").close()
            else:
                await _build_in_machine(parts, work, tar, made / "puzzle.qcow2")
            await in_thread(_finish, parts, key, tar, made)
            await in_thread(file.publish, made, home.layers / key)
    built = _load(home, key)
    assert built is not None
    return built


async def _build_in_machine(parts: _Parts, work: Path, tar: Path, puzzle_disk: Path) -> None:
    """Boot a build machine, run the build in it, and end it with all it wrote on disk."""
    puzzle, factor = parts.puzzle, parts.settings.timeout_factor
    inputs = work / "inputs.tar"
    with inputs.open("wb") as packed:
        await in_thread(pack, puzzle, packed)
    async with build_machine(
        parts.home,
        parts.settings,
        parts.driver,
        name=puzzle.name,
        kernel=parts.kernel,
        initrd=parts.initrd,
        base=parts.image.rootfs,
        disk=puzzle_disk,
        disk_bytes=puzzle.manifest.machine.disk,
    ) as machine:
        with tar.open("wb") as out:
            archive = _Bounded(out, puzzle.manifest.machine.disk)
            work_to_do = build(
                machine.lifeline, puzzle, inputs, archive.write, said=_say, factor=factor
            )
            await while_it_runs(machine, work_to_do)


class _Bounded:
    """A file that the guest may fill up to a limit."""

    def __init__(self, out: BinaryIO, limit: int) -> None:
        self.out = out
        self.left = limit

    def write(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise BuildFailed("the layer's tar is larger than the puzzle's disk")
        self.out.write(data)


def _say(line: str) -> None:
    if line.strip():
        notice(f"  | {line}")


def _finish(parts: _Parts, key: str, tar: Path, made: Path) -> None:
    """Look through the tar, compress it, and write down what the layer is."""
    size_bytes = tar.stat().st_size
    try:
        with tar.open("rb") as source:
            members = sum(1 for _ in scan(source, Limits(bytes=size_bytes)))
    except ArchiveError as error:
        message = f"{parts.puzzle.name}: the layer is refused: {error.message}"
        raise BuildFailed(message) from error
    packed = made / "puzzle.tar.zst"
    proc.run(["zstd", "-q", "-9", "-T0", tar, "-o", packed], timeout=1800)
    manifest = {
        "format": _FORMAT,
        "key": key,
        "puzzle": {"name": parts.puzzle.name, "version": parts.puzzle.manifest.version},
        "base": {"name": parts.image.name, "digest": parts.image.digest},
        "tar": {"sha256": file.digest(tar), "size_bytes": size_bytes, "members": members},
        "archive": {"sha256": file.digest(packed), "size_bytes": packed.stat().st_size},
        "disk": {
            "sha256": file.digest(made / "puzzle.qcow2"),
            "size_bytes": disk.virtual_size(made / "puzzle.qcow2"),
        },
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (made / "manifest.json").write_text(text)
