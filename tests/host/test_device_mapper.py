# SPDX-License-Identifier: Apache-2.0
"""The device mapper for real: what snapshots do when full, held, read-only or left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.errors import CommandFailed, HostError
from bugbox.storage import loop, mapper

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MIB = 1 << 20


def _reason() -> str:
    if os.geteuid() != 0:
        return "needs root"
    try:
        mapper.require()
    except HostError as error:
        return error.message
    return ""


pytestmark = [pytest.mark.host, pytest.mark.skipif(bool(_reason()), reason=_reason())]

TAG = f"bugbox-mapper{os.getpid()}"


class Snap:
    """A snapshot over a file of 8 MiB, its store as large as asked for."""

    def __init__(self, folder: Path, store_bytes: int) -> None:
        self.base, self.store = folder / "base", folder / "store"
        self.base.write_bytes(b"base".ljust(8 * MIB, b"b"))
        self.store.touch()
        os.truncate(self.store, store_bytes)
        self.loop_path = Path()
        with (
            loop.attached(self.base, read_only=True) as base,
            loop.attached(self.store, read_only=False) as store,
        ):
            self.loop_path = base.path
            sectors = 8 * MIB // mapper.SECTOR
            self.node = mapper.create(
                f"{TAG}-snap", [mapper.snapshot(sectors, base.path, store.path)]
            )

    def write(self, size: int) -> None:
        with self.node.open("r+b", buffering=0) as device:
            device.write(b"w" * size)
            os.fsync(device.fileno())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in mapper.names(TAG):
        mapper.remove(name)
    assert [loop.bound_to(path) for path in tmp_path.iterdir() if loop.bound_to(path)] == []


def test_loops_live_as_long_as_what_lies_over_them(folder: Path) -> None:
    """Our descriptors are closed; the mapper holds the devices, and lets them go with it."""
    snap = Snap(folder, mapper.store_bytes(8 * MIB))
    assert loop.bound_to(snap.base) and loop.bound_to(snap.store)
    with snap.node.open("rb") as device:
        assert device.read(4) == b"base"
    assert mapper.remove(f"{TAG}-snap")
    assert not loop.bound_to(snap.base) and not loop.bound_to(snap.store)


def test_a_store_that_is_too_small_is_given_up_and_we_see_it(folder: Path) -> None:
    snap = Snap(folder, MIB)
    snap.write(MIB // 2)
    half = mapper.usage(f"{TAG}-snap")
    assert half.valid and MIB // 2 < half.used_bytes < half.total_bytes == MIB
    with contextlib.suppress(OSError):
        snap.write(2 * MIB)
    assert not mapper.usage(f"{TAG}-snap").valid
    with pytest.raises(OSError, match="Input/output"), snap.node.open("rb") as device:
        device.read(4096)


def test_our_stores_size_holds_everything(folder: Path) -> None:
    snap = Snap(folder, mapper.store_bytes(8 * MIB))
    snap.write(8 * MIB)
    full = mapper.usage(f"{TAG}-snap")
    assert full.valid and full.used_bytes <= full.total_bytes
    assert snap.base.read_bytes()[:4] == b"base"


def test_a_writer_waits_while_it_is_suspended(folder: Path) -> None:
    snap = Snap(folder, mapper.store_bytes(8 * MIB))
    mapper.suspend(f"{TAG}-snap")
    writer = threading.Thread(target=snap.write, args=(MIB,))
    writer.start()
    try:
        writer.join(1.0)
        assert writer.is_alive()
        assert snap.store.read_bytes()[:MIB].count(b"w") == 0
    finally:
        mapper.resume(f"{TAG}-snap")
    writer.join(60)
    assert not writer.is_alive() and mapper.usage(f"{TAG}-snap").valid


def test_a_device_in_use_goes_with_its_user(folder: Path) -> None:
    snap = Snap(folder, mapper.store_bytes(8 * MIB))
    with snap.node.open("rb"):
        assert not mapper.remove(f"{TAG}-snap"), "still there, and marked"
    assert mapper.names(TAG) == []
    assert mapper.remove(f"{TAG}-snap"), "gone already is as good"


def test_a_table_the_kernel_refuses_leaves_nothing(folder: Path) -> None:
    with pytest.raises(CommandFailed):
        mapper.create(f"{TAG}-wrong", [mapper.linear(8, folder / "nothing")])
    assert mapper.names(TAG) == []


def test_pieces_zeros_and_read_only(folder: Path) -> None:
    file = folder / "file"
    file.write_bytes(b"1" * 4096 + b"2" * 4096)
    with loop.attached(file, read_only=True) as device:
        pieces = [mapper.linear(8, device.path, 8), mapper.zero(8), mapper.linear(8, device.path)]
        with mapper.created(f"{TAG}-pieces", pieces, read_only=True) as path:
            assert path.read_bytes() == b"2" * 4096 + bytes(4096) + b"1" * 4096
            with (
                pytest.raises(OSError, match=r"not permitted|Read-only"),
                path.open("r+b", buffering=0) as writer,
            ):
                writer.write(b"x" * 512)


def test_a_snapshot_of_an_origin_keeps_the_old(folder: Path) -> None:
    file, store = folder / "file", folder / "store"
    file.write_bytes(b"o" * MIB)
    store.write_bytes(bytes(2 * MIB))
    sectors = MIB // mapper.SECTOR
    with (
        loop.attached(file, read_only=False) as lower,
        loop.attached(store, read_only=False) as cow,
        mapper.created(f"{TAG}-old", [mapper.snapshot(sectors, lower.path, cow.path)]) as old,
        mapper.created(f"{TAG}-live", [mapper.origin(sectors, lower.path)]) as live,
    ):
        with live.open("r+b", buffering=0) as device:
            device.write(b"n" * 4096)
            os.fsync(device.fileno())
        assert old.read_bytes()[:4096] == b"o" * 4096


def test_a_thin_device_over_an_external_origin(folder: Path) -> None:
    file, meta, data = (folder / name for name in ("file", "meta", "data"))
    file.write_bytes(b"e" * MIB)
    meta.write_bytes(bytes(4 * MIB))
    data.write_bytes(bytes(8 * MIB))
    with (
        loop.attached(file, read_only=True) as base,
        loop.attached(meta, read_only=False) as metadata,
        loop.attached(data, read_only=False) as blocks,
        mapper.created(
            f"{TAG}-pool",
            [mapper.thin_pool(8 * MIB // 512, metadata.path, blocks.path, low_water=8)],
        ) as pool,
    ):
        message = ["dmsetup", "message", str(pool), "0", "create_thin 0"]
        subprocess.run(message, check=True, env={**os.environ, "PATH": PATH})
        target = mapper.thin(MIB // 512, pool, 0, base.path)
        with mapper.created(f"{TAG}-thin", [target]) as thin:
            with thin.open("r+b", buffering=0) as device:
                device.write(b"t" * 4096)
                os.fsync(device.fileno())
            assert thin.read_bytes()[4090:4102] == b"tttttteeeeee"
    assert file.read_bytes() == b"e" * MIB


@pytest.mark.skipif(shutil.which("mke2fs", path=PATH) is None, reason="needs mke2fs")
def test_the_prototypes_error(folder: Path) -> None:
    """A snapshot holds the base's loop device; `mount -o loop` takes that very device."""
    base = folder / "base.img"
    env = {**os.environ, "PATH": PATH}
    make = ["mke2fs", "-q", "-t", "ext4", str(base), "8M"]
    subprocess.run(make, check=True, capture_output=True, env=env)
    (folder / "mnt").mkdir()
    with loop.attached(base, read_only=True) as device:
        held = device.path
        mapper.create(f"{TAG}-holds", [mapper.linear(8 * MIB // 512, device.path)], read_only=True)
    done = subprocess.run(
        ["mount", "-o", "loop,ro", base, folder / "mnt"],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert f"{held} already mounted or mount point busy." in done.stderr
