# SPDX-License-Identifier: Apache-2.0
"""The jail without a jailer: its argv, limits by version, and which programs are let in."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from pathlib import Path

import pytest

from bugbox.errors import HostError, MissingTool, StateError
from bugbox.host import cgroup
from bugbox.host.cgroup import Cgroups, Limits, find, parse_mounts
from bugbox.host.proc import spawn
from bugbox.machine.firecracker import jail
from bugbox.machine.firecracker.jail import JailLimits, jailer_args, mounts_below
from bugbox.machine.firecracker.program import check_static

LIMITS = Limits(memory_bytes=400 << 20, cpus=0.5, pids=64)
MIXED = """\
tmpfs /sys/fs/cgroup tmpfs rw,relatime,mode=755 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0
cgroup2 {unified} cgroup2 rw,relatime 0 0
"""


def test_the_jailers_argv() -> None:
    made = jailer_args(
        jailer=Path("/opt/jailer"),
        id="bb0123456789",
        vmm=Path("/opt/firecracker"),
        uid=1900065540,
        base=Path("/var/lib/bugbox/jails"),
        version=2,
        cgroups=["memory.max=419430400", "cpu.max=50000 100000", "pids.max=64"],
        limits=JailLimits(memory_bytes=1, file_bytes=2 << 30, open_files=512),
        netns=Path("/run/netns/bugbox-0123456789"),
    )
    assert made == [
        "/opt/jailer",
        *("--id", "bb0123456789", "--exec-file", "/opt/firecracker"),
        *("--uid", "1900065540", "--gid", "1900065540"),
        *("--chroot-base-dir", "/var/lib/bugbox/jails"),
        *("--cgroup-version", "2", "--parent-cgroup", "bugbox"),
        *("--cgroup", "memory.max=419430400"),
        *("--cgroup", "cpu.max=50000 100000"),
        *("--cgroup", "pids.max=64"),
        *("--resource-limit", "fsize=2147483648", "--resource-limit", "no-file=512"),
        *("--netns", "/run/netns/bugbox-0123456789"),
        "--",
    ]


def test_limits_by_version() -> None:
    assert Cgroups(2, {}).settings(LIMITS) == [
        "memory.max=419430400",
        "cpu.max=50000 100000",
        "pids.max=64",
    ]
    assert Cgroups(1, {}).settings(LIMITS) == [
        "memory.limit_in_bytes=419430400",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        "pids.max=64",
    ]


def test_a_mixed_host_has_version_one(tmp_path: Path) -> None:
    """Version 2 is mounted, and has no controllers."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MIXED.format(unified=tmp_path))
    (tmp_path / "cgroup.controllers").write_text("\n")
    found = find(mounts)
    assert found.version == 1
    assert found.mounts["cpu"] == Path("/sys/fs/cgroup/cpu,cpuacct")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert find(mounts).version == 2


def test_a_host_without_groups(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\n")
    assert parse_mounts(mounts.read_text()) == ({}, None)
    with pytest.raises(HostError, match="no control groups for memory, cpu, pids"):
        find(mounts)


def elf(*segments: int, magic: bytes = b"\x7fELF\x02\x01") -> bytes:
    """A program's header and its segments, of these types."""
    head = magic.ljust(32, b"\0") + struct.pack("<Q", 64) + bytes(14)
    head += struct.pack("<HH", 56, len(segments))
    return head.ljust(64, b"\0") + b"".join(struct.pack("<I52x", each) for each in segments)


def program(folder: Path, data: bytes, mode: int = 0o755) -> Path:
    path = folder / "firecracker"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_static_program_is_let_in(tmp_path: Path) -> None:
    check_static(program(tmp_path, elf(1, 1, 2)))


@pytest.mark.parametrize(
    ("data", "mode", "why"),
    [
        (elf(1, 3, 2), 0o755, "linked dynamically"),
        (elf(1), 0o644, "not a program that can be run"),
        (b"#!/bin/sh\n", 0o755, "no 64-bit Linux program"),
        (b"", 0o755, "no 64-bit Linux program"),
        (elf(1)[:40], 0o755, "linked dynamically"),
        (elf(1, 1)[:100], 0o755, "linked dynamically"),
        (elf(1, magic=b"\x7fELF\x01\x01"), 0o755, "no 64-bit Linux program"),
    ],
)
def test_others_are_not(tmp_path: Path, data: bytes, mode: int, why: str) -> None:
    with pytest.raises(HostError, match=why):
        check_static(program(tmp_path, data, mode))


def test_a_real_dynamic_program(tmp_path: Path) -> None:
    """And what the jailer would have said of it."""
    with pytest.raises(HostError, match="linked dynamically") as refused:
        check_static(Path("/bin/sh").resolve())
    assert "No such file or directory (os error 2)" in str(refused.value.detail)
    with pytest.raises(MissingTool, match="is not there"):
        check_static(tmp_path / "gone")
    with pytest.raises(HostError):
        check_static(tmp_path)


def test_mounts_below_a_folder_of_any_name() -> None:
    """The kernel's escapes are bytes, and a name's other bytes stand as they are."""
    text = (
        b"22 1 0:5 / / rw - ext4 /dev/sda rw\n"
        b"23 22 0:5 / /a\\040b/\xc3\xa9/x rw shared:1 - ext4 /dev/sda rw\n"
        b"24 23 0:5 / /a\\040b/\xc3\xa9/x/y\\134\xff rw - ext4 /dev/sda rw\n"
        b"25 22 0:5 / /a\\040b/\xc3\xa9x rw - ext4 /dev/sda rw\n"
    )
    folder = Path("/a b/\u00e9")
    assert mounts_below(text, folder) == [Path("/a b/\u00e9/x/y\\\udcff"), Path("/a b/\u00e9/x")]
    assert mounts_below(text, Path("/a")) == []


def test_a_group_is_read_again_until_nothing_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that another started while it was being killed."""
    group = tmp_path / "bugbox/one"
    group.mkdir(parents=True)
    late = spawn(["sleep", "1000"], log_file=tmp_path / "log")
    read = 0

    def processes(self: Cgroups, name: str) -> list[int]:
        nonlocal read
        read += 1
        return [] if read == 1 else [late.pid]

    rmdir = cgroup._removed
    monkeypatch.setattr(Cgroups, "processes", processes)
    monkeypatch.setattr(cgroup, "_removed", lambda folder: not late.alive and rmdir(folder))
    try:
        Cgroups(1, {"memory": tmp_path}).remove("bugbox/one")
        assert not late.alive and read > 1
        assert not group.parent.exists()
    finally:
        late.kill()
        late.wait_gone(30)


def test_a_jail_is_removed_while_others_take_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = jail.Jails(tmp_path / "jails", tmp_path / "leases", users=4)
    one, two = tmp_path / "one", tmp_path / "two"
    taken: list[int] = []

    def remove(name: str) -> None:
        # One of the same process would wait for ever for a lock that we hold.
        lock = os.open(tmp_path / "leases/user ids for jails.lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        taken.append(made.take_uid(two))

    monkeypatch.setattr(jail, "_remove_groups", remove)
    first = made.take_uid(one)
    made.clear(one)
    made.give_back(one)
    assert len(taken) == 2 and first not in taken


def test_who_comes_second_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user may be another jail's by then."""
    made = jail.Jails(tmp_path / "jails", tmp_path / "leases", users=4)
    owner = tmp_path / "one"
    made.take_uid(owner)
    removed: list[Path] = []
    monkeypatch.setattr(made, "_remove", lambda owner, uid: removed.append(owner))
    second = threading.Thread(target=made._end_stale, args=(owner,))
    with made._alone(owner) as lease:
        assert lease is not None
        second.start()
        made._leases.end(owner)
        second.join(0.2)
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive() and removed == []


def test_one_jail_that_is_stuck_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = jail.Jails(tmp_path / "jails", tmp_path / "leases", users=4)
    for name in ("one", "two", "three"):
        owner = tmp_path / "sessions" / name
        owner.mkdir(parents=True)
        made.take_uid(owner)
        owner.rmdir()
    stuck = made._name(tmp_path / "sessions/two")

    def remove(name: str) -> None:
        if name == stuck:
            raise StateError("it cannot be removed")

    monkeypatch.setattr(jail, "_remove_groups", remove)
    assert sorted(made.sweep()) == ["jail of one", "jail of three"]
    assert "jail of two cannot be removed yet: it cannot be removed" in caplog.text
    monkeypatch.setattr(jail, "_remove_groups", lambda name: None)
    assert made.sweep() == ["jail of two"]
