# SPDX-License-Identifier: Apache-2.0
"""What every way to make a session's disk must do: the same rows for each.

Small images made here stand for base and layer. Rows that mount them need root; `snapshot` needs
the device mapper too, so it runs in the lab (tests/host/test_lab.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bugbox.errors import BugboxError, HostError
from bugbox.storage import loop, mapper
from bugbox.storage.disks.choose import STRATEGIES, choose
from bugbox.storage.disks.copy import reflinks
from bugbox.storage.disks.layout import Part, Place, Source, Strategy
from bugbox.storage.file import allocated

ALL = os.environ.get("BUGBOX_TEST_ALL") == "1"
SIZE = 96 << 20
AT = 80 << 20
MANY = 50 if ALL else 8
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

pytestmark = pytest.mark.timeout(600)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts what it made: needs root")

BASE = {
    "etc/motd": "hello of the base\n",
    "etc/old/a": "a of the base\n",
    "etc/old/deep/b": "b of the base\n",
    "etc/kept": "kept\n",
    "srv/big": "0123456789" * 50_000,
}
#: What the layer leaves: one name deleted, one folder replaced, files new and changed.
WANTED = {
    "etc/kept": "kept\n",
    "etc/old/new": "new\n",
    "srv/big": "0123456789" * 50_000,
    "srv/added": "added by the layer\n",
}


def run(*argv: str | Path, input: bytes | None = None) -> str:
    env = {**os.environ, "PATH": PATH}
    done = subprocess.run(argv, input=input, capture_output=True, env=env, check=False)
    assert done.returncode == 0, (argv, done.stderr.decode())
    return done.stdout.decode()


@contextlib.contextmanager
def mounted(device: Path, place: Path, *options: str) -> Iterator[Path]:
    """Mount an image that was made here."""
    place.mkdir(exist_ok=True)
    run("mount", *options, device, place)
    try:
        yield place
    finally:
        run("umount", place)


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "lost+found" not in path.parts
    }


class Shared:
    """A base image and a layer over it."""

    def __init__(self, folder: Path) -> None:
        self.base, self.layer = folder / "base.ext4", folder / "layer" / "puzzle.qcow2"
        self.tar = folder / "layer" / "puzzle.tar.zst"
        (folder / "layer").mkdir()
        write_tree(folder / "tree", BASE)
        run("mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", self.base, "64M")
        if os.geteuid() == 0:
            self._make_layer(folder)

    def _make_layer(self, folder: Path) -> None:
        upper = folder / "upper"
        write_tree(upper, {"etc/old/new": "new\n", "srv/added": "added by the layer\n"})
        (upper / "etc/.wh.motd").touch()
        (upper / "etc/old/.wh..wh..opq").touch()
        packed: list[str | Path] = [
            "tar",
            "-C",
            upper,
            "--format=posix",
            "--numeric-owner",
            "-cf",
            "-",
            ".",
        ]
        tar = subprocess.run(packed, capture_output=True, check=True).stdout
        self.tar.write_bytes(subprocess.run(["zstd", "-q"], input=tar, capture_output=True).stdout)
        whole = folder / "whole.ext4"
        shutil.copy(self.base, whole)
        with mounted(whole, folder / "mnt") as root:
            (root / "etc/motd").unlink()
            shutil.rmtree(root / "etc/old")
            write_tree(root, {"etc/old/new": "new\n", "srv/added": "added by the layer\n"})
        over = ("-B", str(self.base), "-F", "raw", str(whole), str(self.layer))
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *over)
        run("qemu-img", "resize", "-q", self.layer, str(SIZE))

    def source(self, *, layer: bool = True) -> Source:
        return Source(
            base=self.base,
            layer=self.layer if layer else None,
            tar=self.tar if layer else None,
            size_bytes=SIZE,
        )

    def digests(self) -> list[str]:
        files = [path for path in (self.base, self.layer, self.tar) if path.exists()]
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


class Bed:
    """One way, with sessions that are given back at the end."""

    def __init__(self, way: Strategy, folder: Path) -> None:
        self.way, self.folder = way, folder
        self.shared = Shared(folder)
        self.tag = f"bugbox-test{os.getpid()}"

    def place(self, name: str) -> Place:
        folder = self.folder / "sessions" / name
        folder.mkdir(parents=True, exist_ok=True)
        return Place(folder=folder, tag=f"{self.tag}-{name}")

    def make(self, name: str, *, layer: bool = False) -> Part:
        """Make a session's disk; the drive that it writes to."""
        source, place = self.shared.source(layer=layer), self.place(name)
        self.way.make(source, place)
        return self.way.layout(source, place).parts[-1]

    def end(self) -> None:
        for folder in (self.folder / "sessions").glob("*"):
            self.way.give_back(self.place(folder.name))
        assert self.left() == []

    def left(self) -> list[str]:
        files = [*self.folder.rglob("*.store"), self.shared.base, *self.folder.rglob("layer.raw")]
        loops = [f"loop{number}" for path in files for number in loop.bound_to(path)]
        return [*mapper.names(self.tag), *loops] if shutil.which("dmsetup", path=PATH) else loops


@pytest.fixture(params=STRATEGIES)
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bed]:
    way = STRATEGIES[request.param]
    try:
        way.require(tmp_path)
    except HostError as error:
        pytest.skip(f"{way.name}: {error.message}")
    made = Bed(way, tmp_path)
    yield made
    made.end()


def io(part: Part, *commands: str, ok: bool = True) -> str:
    """Read or write the drive as a VMM does."""
    flags = [word for command in commands for word in ("-c", command)]
    env = {**os.environ, "PATH": PATH}
    argv = ["qemu-io", "-f", part.format, *flags, part.path]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    said = done.stdout + done.stderr
    failed = done.returncode != 0 or "failed" in said or "error" in said
    assert failed is not ok, said
    return said


def size(part: Part) -> int:
    if part.device:
        return int(run("blockdev", "--getsize64", part.path))
    told = run("qemu-img", "info", "--output=json", "-f", part.format, part.path)
    found = re.search(r'"virtual-size": (\d+)', told)
    assert found
    return int(found[1])


@contextlib.contextmanager
def as_the_guest_sees_it(bed: Bed, name: str) -> Iterator[Path]:
    """Mount a session's root as its kernel would; nothing has written to it yet."""
    parts = bed.way.layout(bed.shared.source(), bed.place(name)).parts
    folder = bed.folder / "seen"
    folder.mkdir()
    if bed.way.name == "overlay":
        with contextlib.ExitStack() as stack:
            places = []
            for part in parts:
                options = ("-o", "loop,ro" if part.read_only else "loop")
                places.append(stack.enter_context(mounted(part.path, folder / part.id, *options)))
            *lower, scratch = places
            for each in ("upper", "work"):
                (scratch / each).mkdir()
            below = ":".join(map(str, reversed(lower)))
            joined = f"lowerdir={below},upperdir={scratch}/upper,workdir={scratch}/work"
            over = ("-t", "overlay", "-o", joined)
            yield stack.enter_context(mounted(Path("overlay"), folder / "root", *over))
        return
    image = parts[0].path
    if bed.way.name == "qcow2":
        image = folder / "plain"
        run("qemu-img", "convert", "-O", "raw", parts[0].path, image)
    if not parts[0].device:
        run("e2fsck", "-fn", image)
    plain: tuple[str, ...] = () if parts[0].device else ("-o", "loop")
    with mounted(image, folder / "root", *plain) as root:
        yield root


@as_root
def test_the_guest_sees_base_and_layer(bed: Bed) -> None:
    bed.make("one", layer=True)
    with as_the_guest_sees_it(bed, "one") as root:
        assert tree(root) == WANTED
        (root / "etc/kept").write_text("written\n")


@as_root
def test_base_and_layer_never_change(bed: Bed) -> None:
    before = bed.shared.digests()
    part = bed.make("one", layer=True)
    io(part, f"write -P 0xab {AT} 1M", "write -P 0xcd 4096 8192", "flush")
    bed.way.give_back(bed.place("one"))
    assert bed.shared.digests() == before


def test_nobody_sees_anothers_writes(bed: Bed) -> None:
    one, two = bed.make("one"), bed.make("two")
    io(one, f"write -P 0xab {AT} 64k", "flush")
    io(one, f"read -P 0xab {AT} 64k")
    io(two, f"read -P 0 {AT} 64k")
    io(two, f"write -P 0xcd {AT} 64k", "flush")
    io(one, f"read -P 0xab {AT} 64k")


def test_it_is_as_large_as_asked_for_and_no_larger(bed: Bed) -> None:
    """The base's filesystem grows into it at the first boot."""
    part = bed.make("one")
    assert size(part) == SIZE
    io(part, f"write -P 1 {SIZE - 65536} 64k")
    io(part, f"write -P 1 {SIZE} 64k", ok=False)


def test_every_block_can_be_written(bed: Bed) -> None:
    part = bed.make("one")
    io(part, f"write -P 7 0 {SIZE}", "flush")
    io(part, f"read -P 7 0 {SIZE}")
    if part.device:
        assert mapper.usage(part.path.name).valid


def test_a_new_disk_costs_next_to_nothing(bed: Bed) -> None:
    before = allocated(bed.folder)
    bed.make("one")
    # Device mapper counts in the guest's first writes; nothing has run here yet.
    costs = allocated(bed.folder) - before
    if bed.way.name == "copy" and not reflinks(bed.shared.base, bed.folder):
        assert costs <= allocated(bed.shared.base) + (1 << 20)
    else:
        assert costs <= 1 << 20


def test_made_again_it_is_empty(bed: Bed) -> None:
    """As `reset` does: what was written is gone."""
    io(bed.make("one"), f"write -P 0xab {AT} 64k", "flush")
    io(bed.make("one"), f"read -P 0 {AT} 64k")


def test_devices_come_back_over_what_was_written(bed: Bed) -> None:
    """After the host was restarted: files are there, devices are not."""
    part = bed.make("one")
    io(part, f"write -P 0xab {AT} 64k", "flush")
    bed.way.give_back(bed.place("one"))
    bed.way.bring_back(bed.place("one"))
    bed.way.bring_back(bed.place("one"))
    io(part, f"read -P 0xab {AT} 64k")


MAKER = """
import sys, time
from pathlib import Path
from bugbox.storage.disks.choose import STRATEGIES
from bugbox.storage.disks.layout import Place, Source
way, base, folder, tag, size = sys.argv[1:]
print("now", flush=True)
source = Source(base=Path(base), size_bytes=int(size))
STRATEGIES[way].make(source, Place(folder=Path(folder), tag=tag))
print("made", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("after", [0.0, 0.05, None], ids=["at once", "a little later", "when made"])
def test_killed_it_leaves_nothing(bed: Bed, after: float | None) -> None:
    place = bed.place("one")
    args = [bed.way.name, str(bed.shared.base), str(place.folder), place.tag, str(SIZE)]
    maker = subprocess.Popen([sys.executable, "-c", MAKER, *args], stdout=subprocess.PIPE)
    assert maker.stdout
    maker.stdout.readline()
    if after is None:
        maker.stdout.readline()
    else:
        with contextlib.suppress(subprocess.TimeoutExpired):
            maker.wait(after)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    bed.way.give_back(place)
    bed.way.give_back(place)
    assert bed.left() == []


def test_many_at_once(bed: Bed) -> None:
    names = [f"n{number}" for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(bed.make, names))
    assert len({part.path for part in parts}) == MANY
    for number, part in enumerate(parts):
        io(part, f"write -P {number + 1} {AT} 4k", "flush")
    for number, part in enumerate(parts):
        io(part, f"read -P {number + 1} {AT} 4k")
    if bed.way.name == "snapshot":
        assert len(loop.bound_to(bed.shared.base)) == 1


def test_no_room(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    if bed.way.name == "copy":
        bed.shared.base.chmod(0o600)
    with pytest.raises(BugboxError, match="MiB are free"):
        bed.make("one")
    assert bed.left() == []


@as_root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_reflink_shares_every_block(tmp_path: Path, kind: str) -> None:
    """On a filesystem that has them, a copy costs nothing and is made at once."""
    if shutil.which(f"mkfs.{kind}", path=PATH) is None:
        pytest.skip(f"needs mkfs.{kind}")
    image = tmp_path / "image"
    image.touch()
    os.truncate(image, 512 << 20)
    run(f"mkfs.{kind}", "-q", image)
    place = tmp_path / "mnt"
    place.mkdir()
    try:
        run("mount", "-o", "loop", image, place)
    except AssertionError as error:
        pytest.skip(f"this kernel mounts no {kind}: {error}")
    try:
        (place / "bed").mkdir()
        bed = Bed(STRATEGIES["copy"], place / "bed")
        assert reflinks(bed.shared.base, bed.folder)
        assert choose("auto", base=bed.shared.base, folder=bed.folder, raw=True).name == "copy"
        os.sync()
        before = os.statvfs(place).f_bfree
        part = bed.make("one", layer=True)
        os.sync()
        now = os.statvfs(place)
        assert (before - now.f_bfree) * now.f_frsize < 3 << 20  # layer.raw, made once, among it
        with as_the_guest_sees_it(bed, "one") as root:
            assert tree(root) == WANTED
        io(part, f"write -P 0xab {AT} 64k")
        bed.end()
    finally:
        run("umount", place)


def test_auto_is_what_this_host_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(4096))
    assert choose("auto", base=base, folder=tmp_path, raw=False).name == "qcow2"
    monkeypatch.setattr("bugbox.storage.disks.choose.reflinks", lambda *_: False)

    def lacks(folder: Path) -> None:
        raise HostError("this host has no device mapper")

    monkeypatch.setattr(STRATEGIES["snapshot"], "require", lacks)
    assert choose("auto", base=base, folder=tmp_path, raw=True).name == "overlay"
    with pytest.raises(HostError, match="no device mapper"):
        choose("snapshot", base=base, folder=tmp_path, raw=False)
    with pytest.raises(BugboxError, match="does not read qcow2"):
        choose("qcow2", base=base, folder=tmp_path, raw=True)
