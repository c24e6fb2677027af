# SPDX-License-Identifier: Apache-2.0
"""Further disks of a puzzle: fresh for each session, as the manifest says, without host files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from session_world import MANIFEST, World, run, world

from bugbox.errors import DefinitionError
from bugbox.host.bridge import in_thread
from bugbox.puzzle.definition import load
from bugbox.session.provision import provision
from bugbox.session.stopwatch import Stopwatch

DISKS = """\
machine:
  disks:
    - {name: spool, size: 8MiB, fs: ext4, mkfs: [-N, "64"]}
    - {name: raw, size: 1MiB}
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        made.write("puzzle.yaml", MANIFEST + DISKS)
        yield made


def dumped(image: Path) -> str:
    argv = ["/usr/sbin/dumpe2fs", "-h", str(image)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_session_has_disks_of_its_own(made: World) -> None:
    plan = made.plan()
    assert not plan.clonable

    async def work() -> None:
        ledger, machine = await provision(plan, made.parts, made.host, Stopwatch())
        drives = [(drive.id, drive.format, drive.path) for drive in machine.spec.drives[1:]]
        assert [(id, form) for id, form, _ in drives] == [
            ("extra-spool", "raw"),
            ("extra-raw", "raw"),
        ]
        spool, raw = (path for _, _, path in drives)
        assert spool.parent == ledger.paths.root and raw.read_bytes() == bytes(1 << 20)
        told = await in_thread(dumped, spool)
        assert "volume name:   spool" in told
        inodes = next(line for line in told.splitlines() if line.startswith("Inode count:"))
        assert int(inodes.split()[-1]) <= 128
        await machine.stop(0.0)

    run(work)


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ("{name: a, size: 8MiB, fs: ext4, mkfs: [-d, /etc]}", "expected one of -b"),
        ("{name: a, size: 8MiB, fs: ext4, mkfs: [-J, device=/dev/sda]}", "expected one of -b"),
        ("{name: a, size: 8MiB, mkfs: [-N, '64']}", "expected fs beside mkfs"),
        ("{name: a, size: 8MiB, fs: ntfs}", "ext2"),
        ("{name: ../a, size: 8MiB}", "lower-case letters"),
        ("{name: a, size: 1KiB}", "from 1MiB"),
    ],
)
def test_what_no_disk_may_be(made: World, disk: str, expected: str) -> None:
    made.write("puzzle.yaml", f"{MANIFEST}machine:\n  disks:\n    - {disk}\n")
    with pytest.raises(DefinitionError) as error:
        load(made.puzzle)
    assert expected in error.value.message
