# SPDX-License-Identifier: Apache-2.0
"""What the host can give, from what the kernel writes about it."""

from pathlib import Path

import pytest

from bugbox.host.room import Room, memory

MEMINFO = """\
MemTotal:        8000 kB
MemFree:          100 kB
MemAvailable:    5000 kB
HugePages_Total:    0
"""
KIB = 1024


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    return tmp_path


def look(host: Path) -> tuple[int, int]:
    found = memory(host / "proc", host / "cgroup")
    return found.total // KIB, found.available // KIB


def put(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def test_the_kernels_word_where_there_is_no_limit(host: Path) -> None:
    assert look(host) == (8000, 5000)
    put(host / "cgroup", max="max\n", current="0\n", stat="inactive_file 0\n")
    assert look(host) == (8000, 5000)


def test_a_cgroups_limit_and_that_of_the_one_above(host: Path) -> None:
    (host / "proc/self/cgroup").write_text("0::/box/inner\n")
    put(host / "cgroup/box/inner", max="max\n", current="1\n", stat="inactive_file 0\n")
    stat = f"anon 5\ninactive_file {500 * KIB}\n"
    put(host / "cgroup/box", max=f"{3000 * KIB}\n", current=f"{1500 * KIB}\n", stat=stat)
    assert look(host) == (3000, 2000)


def test_the_first_version_of_cgroups(host: Path) -> None:
    (host / "proc/self/cgroup").write_text("4:memory:/box\n1:cpu:/box\n0::/\n")
    stat = "total_inactive_file 0\n"
    folder = host / "cgroup/memory"
    put(folder, limit_in_bytes=f"{(1 << 63) - 4096}\n", usage_in_bytes="7\n", stat=stat)
    assert look(host) == (8000, 5000)
    limits = {"limit_in_bytes": f"{1000 * KIB}\n", "usage_in_bytes": f"{2000 * KIB}\n"}
    put(folder / "box", **limits, stat=stat)
    assert look(host) == (1000, 0)


def test_this_host() -> None:
    room = memory()
    assert isinstance(room, Room)
    assert 0 < room.available <= room.total
