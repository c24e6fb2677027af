# SPDX-License-Identifier: Apache-2.0
"""Build puzzles' layers in machines of their own, once, and keep them by what they were made of.

A puzzle that came in a pack brought its layer along: that is unpacked onto a disk in such a
machine too, instead of being built. What comes from elsewhere is not trusted, be it a build
machine's or a pack's: the tar is read through before it is published, and nothing of it is ever
extracted or mounted on the host.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import anyio

from bugbox.config import Settings
from bugbox.errors import BuildFailed
from bugbox.events import notice, step
from bugbox.host.bridge import held, in_thread
from bugbox.image.kernel import BuiltKernel
from bugbox.image.rootfs import BuiltImage
from bugbox.machine.driver import Driver, Machine
from bugbox.paths import Home
from bugbox.puzzle.build import build, connect
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.inputs import layer_key, pack
from bugbox.puzzle.unpack import unpack
from bugbox.session.build_machine import Parts, build_machine, while_it_runs
from bugbox.session.layer import BuiltLayer, Made, finish, head_of, load
from bugbox.session.network import build_card
from bugbox.session.resident import Resident
from bugbox.storage import disk, file, layer_file
from bugbox.storage.archive import ArchiveError
from bugbox.storage.layer_file import Head

__all__ = [
    "BuiltLayer",
    "Parts",
    "apply_layer",
    "brought",
    "build_again",
    "ensure_layer",
    "find_layer",
]

#: The build machine's disks at the start, and the tar of an ordinary puzzle.
_NEEDS = 256 << 20


def find_layer(home: Home, puzzle: Puzzle, image: BuiltImage) -> BuiltLayer | None:
    """Return the puzzle's layer as the puzzle is now; None when it has to be built first."""
    return load(home, _key(home, puzzle, image.digest))


async def ensure_layer(
    home: Home,
    settings: Settings,
    puzzle: Puzzle,
    image: BuiltImage,
    kernel: BuiltKernel,
    initrd: Path,
    driver: Driver,
    made: Made | None = None,
    resident: Resident | None = None,
) -> BuiltLayer:
    """Return the puzzle's layer; build it when it is missing.

    `made` is the layer when another builder has made it: it is unpacked instead. `resident` may
    have a build machine that stands by.

    When two want the same puzzle, one builds and the other waits. BuildFailed has build.sh's
    output. Whatever goes wrong or is cancelled, the store has a whole layer or none.
    """
    key = await in_thread(_key, home, puzzle, image.digest)
    found = load(home, key)
    if found is not None:
        return found
    await in_thread(home.prepare)
    parts = Parts(
        home=home,
        settings=settings,
        image=image,
        kernel=kernel,
        initrd=initrd,
        driver=driver,
    )
    async with alone(home, f"layer-{puzzle.name}", puzzle.name):
        return load(home, key) or await _build(parts, puzzle, key, made, resident)


async def build_again(
    home: Home,
    settings: Settings,
    puzzle: Puzzle,
    image: BuiltImage,
    kernel: BuiltKernel,
    initrd: Path,
    driver: Driver,
) -> str:
    """Build a puzzle's layer afresh and throw it away; return its tar's SHA-256."""
    parts = Parts(
        home=home,
        settings=settings,
        image=image,
        kernel=kernel,
        initrd=initrd,
        driver=driver,
    )
    await in_thread(file.require_free, home.tmp, _NEEDS, f"building {puzzle.name}")
    async with held(file.workspace(home.tmp, "layer")) as work:
        made = work / "layer"
        made.mkdir()
        head, _ = await _build_new(parts, puzzle, work, made)
    return head.tar_sha256


def brought(home: Home, puzzle: Puzzle, base_digest: str) -> Path | None:
    """Return the layer that came with an added puzzle, when it is this puzzle's on this base."""
    path = home.added_layer(puzzle.name)
    if puzzle.folder != (home.puzzles / puzzle.name).resolve() or not puzzle.builds:
        return None
    try:
        head = layer_file.read_head(path)
    except (OSError, ArchiveError):
        return None
    fits = (
        head.base_digest == base_digest
        and head.disk_bytes == puzzle.manifest.machine.disk
        and head.inputs == pack(puzzle, None)
    )
    return path if fits else None


def _key(home: Home, puzzle: Puzzle, base_digest: str) -> str:
    """Return the layer's name: of what it is made, or of what was brought."""
    own = layer_key(puzzle, base_digest)
    path = brought(home, puzzle, base_digest)
    if path is None:
        return own
    # Never the name that building would give it: nobody here has seen it being built.
    return hashlib.sha256(f"{own} {layer_file.read_head(path).tar_sha256}".encode()).hexdigest()


@asynccontextmanager
async def alone(home: Home, lock: str, what: str) -> AsyncIterator[None]:
    """Hold the lock for building something; a wait for it can be cancelled."""
    path = home.tmp / f".{lock}.lock"
    told = False
    while True:
        with file.try_lock(path) as ours:
            if ours:
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        if not told:
            notice(f"another bugbox is building {what}: waiting for it")
            told = True
        await anyio.sleep(0.2)


async def _build(
    parts: Parts, puzzle: Puzzle, key: str, given: Made | None, resident: Resident | None
) -> BuiltLayer:
    home = parts.home
    if given is None and (path := brought(home, puzzle, parts.image.digest)):
        given = Made(file=path)
    if given is None and puzzle.manifest.build.network:
        build_card(puzzle.name, parts.settings)  # before anything is made for what is refused
    with step(f"Build puzzle {puzzle.name}" if given is None else f"Unpack {puzzle.name}"):
        await in_thread(file.sweep, home.tmp)
        await in_thread(file.require_free, home.tmp, _NEEDS, f"building {puzzle.name}")
        async with held(file.workspace(home.tmp, "layer")) as work:
            made = work / "layer"
            made.mkdir()
            if given is None:
                head, warnings = await _build_new(parts, puzzle, work, made, resident)
            else:
                size = puzzle.manifest.machine.disk
                head = await apply_layer(parts, given.file, made / "puzzle.qcow2", size)
                warnings = [*given.warnings]
                await in_thread(_copy, given.file, made / "puzzle.tar.zst")
            await in_thread(finish, made, key, head, warnings)
            await in_thread(file.publish, made, home.layers / key)
    built = load(home, key)
    assert built is not None
    return built


async def _build_new(
    parts: Parts, puzzle: Puzzle, work: Path, made: Path, resident: Resident | None = None
) -> tuple[Head, list[str]]:
    """Make tar and disk by running build.sh."""
    tar, inputs, warnings = work / "puzzle.tar", work / "inputs.tar", list[str]()
    size = puzzle.manifest.machine.disk
    digest = ""
    if not puzzle.builds:
        tarfile.open(tar, "w").close()
        await in_thread(_empty_disk, parts, made / "puzzle.qcow2", size)
    else:
        with inputs.open("wb") as packed:
            digest = await in_thread(pack, puzzle, packed)
        qcow2 = made / "puzzle.qcow2"
        online = puzzle.manifest.build.network
        async with _machine(parts, puzzle.name, qcow2, size, resident, online) as (machine, begun):
            if online:
                factor = parts.settings.timeout_factor
                await while_it_runs(machine, connect(machine.lifeline, factor))
            with tar.open("wb") as out:
                work_to_do = build(
                    machine.lifeline,
                    puzzle,
                    inputs,
                    _Bounded(out, size).write,
                    said=_say,
                    factor=parts.settings.timeout_factor,
                    begun=begun,
                )
                warnings = await while_it_runs(machine, work_to_do)
    head = await in_thread(
        head_of,
        tar,
        name=puzzle.name,
        version=puzzle.manifest.version or "",
        inputs=digest,
        base=parts.image.name,
        base_digest=parts.image.digest,
        disk_bytes=size,
    )
    await in_thread(layer_file.write, tar, made / "puzzle.tar.zst", head)
    return head, warnings


async def apply_layer(parts: Parts, source: Path, to: Path, disk_bytes: int) -> Head:
    """Unpack a layer's file onto a new disk over the base image; return what it is.

    It is read as a whole before. ArchiveError: it breaks a rule, or is damaged.
    """
    head, entries = await in_thread(layer_file.verify, source)
    async with (
        held(file.workspace(parts.home.tmp, "unpack")) as work,
        build_machine(
            parts, name=head.puzzle or "layer", disk=to, disk_bytes=disk_bytes
        ) as machine,
    ):
        tar = work / "layer.tar"
        await in_thread(_unpacked, source, tar, head)
        factor = parts.settings.timeout_factor
        await while_it_runs(machine, unpack(machine.lifeline, tar, entries, factor=factor))
    return head


@asynccontextmanager
async def _machine(
    parts: Parts,
    name: str,
    to: Path,
    size: int,
    resident: Resident | None,
    online: bool,
) -> AsyncIterator[tuple[Machine, bool]]:
    """Give a machine that makes the disk `to`, and whether it is ready for a build already."""
    async with AsyncExitStack() as stack:
        if resident is not None and not online:
            stood_by = await stack.enter_async_context(resident.claimed(parts, size, to))
            if stood_by is not None:
                yield stood_by, True
                return
        booted = build_machine(parts, name=name, disk=to, disk_bytes=size, online=online)
        yield await stack.enter_async_context(booted), False


def _empty_disk(parts: Parts, path: Path, size: int) -> None:
    disk.create_overlay(path, backing=parts.image.rootfs, backing_format="raw", size_bytes=size)


def _unpacked(source: Path, tar: Path, head: Head) -> None:
    """Write the tar that `verify` has read; a file that changed since then is refused."""
    with layer_file.opened(source) as packed, tar.open("wb") as out:
        bounded = _Bounded(out, head.tar_bytes)
        while data := packed.read(1 << 20):
            bounded.write(data)
    if file.digest(tar) != head.tar_sha256:
        raise ArchiveError(f"{source}: changed while it was read")


def _copy(source: Path, to: Path) -> None:
    with source.open("rb") as file_, to.open("wb") as out:
        while data := file_.read(1 << 20):
            out.write(data)


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
