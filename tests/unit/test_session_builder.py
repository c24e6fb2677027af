# SPDX-License-Identifier: Apache-2.0
"""A layer is in the store whole or not at all, whatever the build machine hands out."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bugbox.config import Settings
from bugbox.errors import (
    BugboxError,
    BuildFailed,
    HostError,
    MachineLost,
    OutOfResources,
    UserError,
)
from bugbox.events import Event, Notice, listening
from bugbox.host import proc
from bugbox.image.rootfs import BuiltImage
from bugbox.machine.state import State
from bugbox.paths import Home
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.inputs import layer_key
from bugbox.puzzle.scaffold import create
from bugbox.session import builder
from bugbox.session.build_machine import while_it_runs
from bugbox.session.builder import BuiltLayer, ensure_layer, find_layer
from bugbox.session.container import built_in_container
from bugbox.storage.disk import create_empty


def tar_of(name: str = "srv/", kind: bytes = tarfile.DIRTYPE) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type = kind
        tar.addfile(info)
    return out.getvalue()


class World:
    """A home, a puzzle, a base, and a build machine that exists on paper only."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        self.home = Home(tmp_path / "home")
        self.home.prepare()
        self.puzzle: Puzzle = load(create(tmp_path, "small"))
        base = tmp_path / "base"
        base.mkdir()
        with (base / "rootfs.ext4").open("wb") as image:
            image.truncate(64 << 20)
        self.image = BuiltImage(
            digest="b" * 64,
            recipe="r",
            name="debian-12",
            folder=base,
            size_bytes=64 << 20,
            packages=(),
            kernel_release="6",
            sha256="",
        )
        self.settings = Settings()
        self.tar = tar_of()
        self.builds = 0
        self.during: Callable[[], Any] = lambda: None
        monkeypatch.setattr(builder, "build_machine", self.machine)
        monkeypatch.setattr(builder, "build", self.build)

    @asynccontextmanager
    async def machine(self, *_: object, disk: Path, **__: object) -> AsyncIterator[object]:
        create_empty(disk, size_bytes=2 << 30)
        yield SimpleNamespace(
            lifeline=None, state=State.BOOTING, reason="", watch=lambda seen: None
        )

    async def build(
        self,
        guest: object,
        puzzle: Puzzle,
        inputs: Path,
        archive: Callable[[bytes], None],
        **_: Any,
    ) -> list[str]:
        self.builds += 1
        await asyncio.sleep(0.1)
        self.during()
        archive(self.tar)
        return ["something is lost"]

    async def ensure(self) -> BuiltLayer:
        return await ensure_layer(
            self.home,
            self.settings,
            self.puzzle,
            self.image,
            None,
            Path(),
            SimpleNamespace(),  # type: ignore[arg-type]
        )

    def leftovers(self) -> list[Path]:
        inside = [*self.home.layers.iterdir(), *self.home.tmp.iterdir()]
        return [path for path in inside if path.is_dir()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_layer_is_built_once_and_found_again(world: World) -> None:
    assert find_layer(world.home, world.puzzle, world.image) is None
    layer = asyncio.run(world.ensure())
    assert find_layer(world.home, world.puzzle, world.image) == layer
    assert asyncio.run(world.ensure()) == layer
    assert world.builds == 1
    assert proc.run(["zstd", "-dc", layer.tar], timeout=30).stdout == world.tar
    assert layer.size_bytes == 2 << 30
    assert layer.warnings == ("something is lost",)
    assert world.leftovers() == [layer.folder]


def test_two_at_once_build_once(world: World) -> None:
    heard: list[Event] = []

    async def both() -> list[BuiltLayer]:
        return await asyncio.gather(world.ensure(), world.ensure())

    with listening(heard.append):
        one, other = asyncio.run(both())
    assert one == other
    assert world.builds == 1
    assert [e.text for e in heard if isinstance(e, Notice)] == [
        "another bugbox is building small: waiting for it"
    ]
    assert not list(world.home.tmp.glob(".layer-*"))


def test_the_same_tar_has_the_same_digest(world: World) -> None:
    first = asyncio.run(world.ensure())
    (world.puzzle.folder / "files").mkdir(exist_ok=True)
    (world.puzzle.folder / "files" / "more").write_text("more")
    world.puzzle = load(world.puzzle.folder)
    second = asyncio.run(world.ensure())
    assert first.key != second.key
    assert first.tar_sha256 == second.tar_sha256


@pytest.mark.parametrize(
    "tar",
    [
        pytest.param(tar_of("../etc"), id="leaves the root"),
        pytest.param(tar_of("sda", tarfile.BLKTYPE), id="a block device"),
        pytest.param(b"nonsense" * 200, id="no tar"),
        pytest.param(b"", id="nothing"),
        pytest.param(tar_of()[:700], id="cut"),
    ],
)
def test_a_tar_that_breaks_a_rule_is_never_published(world: World, tar: bytes) -> None:
    world.tar = tar
    with pytest.raises(BuildFailed, match="small: the layer is refused"):
        asyncio.run(world.ensure())
    assert world.leftovers() == []


def test_a_tar_without_end_is_cut_off(world: World) -> None:
    small = world.puzzle.manifest.machine.model_copy(update={"disk": 1024})
    manifest = world.puzzle.manifest.model_copy(update={"machine": small})
    object.__setattr__(world.puzzle, "manifest", manifest)
    world.tar = bytes(2048)
    with pytest.raises(BuildFailed, match="larger than the puzzle's disk"):
        asyncio.run(world.ensure())
    assert world.leftovers() == []


@pytest.mark.parametrize("error", [MachineLost("gone"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing(world: World, error: BaseException) -> None:
    def stop() -> None:
        raise error

    world.during = stop
    with pytest.raises(type(error)):
        asyncio.run(world.ensure())
    assert world.leftovers() == []
    assert find_layer(world.home, world.puzzle, world.image) is None


def test_a_cancelled_wait_gives_the_lock_back(world: World) -> None:
    async def impatient() -> BuiltLayer:
        first = asyncio.create_task(world.ensure())
        await asyncio.sleep(0.05)
        second = asyncio.create_task(world.ensure())
        await asyncio.sleep(0.02)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        return await first

    assert asyncio.run(impatient()).tar.exists()
    assert world.builds == 1


def test_a_puzzle_that_changes_nothing_needs_no_machine(world: World) -> None:
    (world.puzzle.folder / "build.sh").unlink()
    world.puzzle = load(world.puzzle.folder)
    layer = asyncio.run(world.ensure())
    assert world.builds == 0
    assert not any(proc.run(["zstd", "-dc", layer.tar], timeout=30).stdout)


def test_a_manifest_of_another_format_is_no_layer(world: World) -> None:
    layer = asyncio.run(world.ensure())
    manifest = layer.folder / "manifest.json"
    values = json.loads(manifest.read_text())
    assert stat.S_IMODE(manifest.stat().st_mode) & 0o444
    for spoilt in ({**values, "format": 99}, {"format": 1}, []):
        manifest.write_text(json.dumps(spoilt))
        assert find_layer(world.home, world.puzzle, world.image) is None
    manifest.write_text("{")
    assert find_layer(world.home, world.puzzle, world.image) is None


class PaperMachine:
    reason = "tried"

    def __init__(self, state: State = State.BOOTING) -> None:
        self.state = state
        self.callbacks: list[Callable[[State], None]] = []

    def watch(self, callback: Callable[[State], None]) -> None:
        self.callbacks.append(callback)


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        (State.STALLED, OutOfResources, "the disk of this host is full"),
        (State.FAILED, MachineLost, "the build machine is failed: tried"),
        (State.REBOOTING, MachineLost, "the build machine is rebooting"),
        (State.OFF, MachineLost, "the build machine is off"),
    ],
)
def test_a_machine_that_ends_ends_the_work(
    state: State, kind: type[BugboxError], words: str
) -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    async def main() -> None:
        machine = PaperMachine()
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, lambda: [seen(state) for seen in machine.callbacks])
        await while_it_runs(machine, work())  # type: ignore[arg-type]

    with pytest.raises(kind, match=words):
        asyncio.run(main())
    assert ended == [True]


def test_work_that_fails_says_why_itself() -> None:
    async def work() -> None:
        raise BuildFailed("mine")

    async def main() -> None:
        await while_it_runs(PaperMachine(), work())  # type: ignore[arg-type]

    with pytest.raises(BuildFailed, match="mine"):
        asyncio.run(main())


def test_a_build_has_a_network_where_the_owner_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another layer than without, and refused before a machine is booted."""
    plain = layer_key(world.puzzle, world.image.digest)
    manifest = world.puzzle.folder / "puzzle.yaml"
    manifest.write_text(manifest.read_text() + "build: {network: true}\n")
    world.puzzle = load(world.puzzle.folder)
    assert layer_key(world.puzzle, world.image.digest) != plain
    with pytest.raises(HostError, match=r"small asks for build\.network; .* own services"):
        asyncio.run(world.ensure())
    assert world.builds == 0 and world.leftovers() == []

    async def connected(guest: object, factor: float) -> None:
        assert world.builds == 0
        connections.append(factor)

    connections: list[float] = []
    monkeypatch.setattr(builder, "connect", connected)
    world.settings = Settings(open_network="on")
    asyncio.run(world.ensure())
    assert (world.builds, connections) == (1, [1.0])


def test_a_container_has_no_network(world: World) -> None:
    manifest = world.puzzle.folder / "puzzle.yaml"
    manifest.write_text(manifest.read_text() + "build: {network: true}\n")
    puzzle = load(world.puzzle.folder)
    with pytest.raises(UserError, match="containers here never have") as caught:
        with built_in_container(world.home, puzzle, world.image):
            raise AssertionError
    assert "--builder vm" in (caught.value.hint or "")
