# SPDX-License-Identifier: Apache-2.0
"""Starting QEMU: what it inherits, what is recorded, what is refused. A program stands for it."""

import dataclasses
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bugbox.errors import HostError, StateError
from bugbox.host.proc import Process
from bugbox.machine.qemu.cmdline import Platform
from bugbox.machine.qemu.launch import _gate, launch
from bugbox.machine.sockets import log_tail
from bugbox.machine.spec import Drive, Kernel, MachineSpec, Nic

PLATFORM = Platform(accel="tcg", cpu="max")
#: Shows what it inherited, then waits to be killed.
PROGRAM = """
for fd in /proc/self/fd/*; do readlink $fd; done > links
cp /proc/self/fdinfo/* . 2>/dev/null
echo a line of its own
mv links seen
exec sleep 600
"""


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[MachineSpec]:
    for name in ("vmlinux", "initrd", "base.ext4", "disk.qcow2"):
        (tmp_path / name).write_bytes(name.encode())
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\ncd {tmp_path}{PROGRAM}")
    program.chmod(0o755)
    base = Drive(id="base", path=tmp_path / "base.ext4", format="raw", read_only=True)
    with tempfile.TemporaryDirectory(prefix="bb-", dir="/tmp") as runtime:
        yield MachineSpec(
            id="m",
            kernel=Kernel(vmlinux=tmp_path / "vmlinux", initrd=tmp_path / "initrd", release="6.1"),
            drives=(Drive(id="root", path=tmp_path / "disk.qcow2", format="qcow2", backing=base),),
            root=tmp_path,
            runtime=Path(runtime),
        )


class Started:
    """Ends what was started."""

    def __init__(self) -> None:
        self.processes: list[Process] = []

    def __call__(self, process: Process) -> None:
        self.processes.append(process)


@pytest.fixture
def started() -> Iterator[Started]:
    made = Started()
    yield made
    for process in made.processes:
        process.kill()
        assert process.wait_gone(10)


def start(spec: MachineSpec, started: Started) -> None:
    program = str(spec.root / "qemu")
    launch(spec, PLATFORM, program=program, append="console=ttyS0", started=started)


def seen(spec: MachineSpec) -> list[str]:
    for _ in range(2000):
        if (spec.root / "seen").exists():
            return (spec.root / "seen").read_text().split()
        time.sleep(0.005)
    raise AssertionError("the program never ran")


def test_it_inherits_its_files_and_sockets_and_nothing_else(
    spec: MachineSpec, started: Started, tmp_path: Path
) -> None:
    with (tmp_path / "secret").open("w"):
        before = set(Path("/proc/self/fd").iterdir())
        start(spec, started)
        assert set(Path("/proc/self/fd").iterdir()) == before, "we keep none of them"
        links = seen(spec)
    for name in ("vmlinux", "initrd", "base.ext4", "disk.qcow2"):
        assert links.count(str(tmp_path / name)) == 1
    assert sum(link.startswith("socket:") for link in links) == 3
    assert not any("secret" in link for link in links)


def test_the_command_line_is_recorded_exactly(spec: MachineSpec, started: Started) -> None:
    start(spec, started)
    seen(spec)
    record = json.loads((spec.root / "argv.json").read_text())
    assert record["argv"][0] == str(spec.root / "qemu")
    assert record["argv"][1:3] == ["-name", "guest=m,debug-threads=on"]
    assert sorted(Path(name).name for name in record["descriptors"].values()) == [
        "base.ext4",
        "console",
        "disk.qcow2",
        "initrd",
        "lifeline",
        "qmp",
        "vmlinux",
    ]
    used = " ".join(record["argv"])
    for fd in record["descriptors"]:
        assert f"fd={fd}" in used or f"/proc/self/fd/{fd}" in used


def test_the_sockets_can_be_connected_to_at_once(spec: MachineSpec, started: Started) -> None:
    start(spec, started)
    for name in ("qmp", "console", "lifeline"):
        path = spec.runtime / name
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_its_own_words_are_kept(spec: MachineSpec, started: Started) -> None:
    assert log_tail(spec) == ""
    start(spec, started)
    seen(spec)
    assert log_tail(spec) == "a line of its own"


def test_a_read_only_disk_is_opened_for_reading(spec: MachineSpec, started: Started) -> None:
    (spec.root / "base.ext4").chmod(0o444)
    start(spec, started)
    seen(spec)
    record = json.loads((spec.root / "argv.json").read_text())
    flags = {}
    for fd, name in record["descriptors"].items():
        info = (spec.root / fd).read_text()
        line = next(line for line in info.splitlines() if line.startswith("flags:"))
        flags[Path(name).name] = int(line.split()[1], 8) & os.O_ACCMODE
    assert flags["base.ext4"] == flags["vmlinux"] == flags["initrd"] == os.O_RDONLY
    assert flags["disk.qcow2"] == os.O_RDWR


def test_sockets_of_a_dead_machine_are_replaced(spec: MachineSpec, started: Started) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(spec.runtime / "qmp"))
    start(spec, started)
    assert len(started.processes) == 1


def test_a_living_machine_is_not_started_twice(spec: MachineSpec, started: Started) -> None:
    start(spec, started)
    with pytest.raises(StateError, match="still running"):
        start(spec, started)
    assert len(started.processes) == 1


@pytest.mark.parametrize("name", ["vmlinux", "initrd", "base.ext4", "disk.qcow2"])
def test_a_missing_file_is_named_and_nothing_starts(
    spec: MachineSpec, started: Started, name: str
) -> None:
    (spec.root / name).unlink()
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(HostError, match=f"{name} cannot be opened"):
        start(spec, started)
    assert started.processes == []
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_kernel_that_the_machine_s_user_cannot_read_is_refused(
    spec: MachineSpec, started: Started
) -> None:
    (spec.root / "vmlinux").chmod(0o600)
    other = dataclasses.replace(spec, uid=os.geteuid() + 1)
    with pytest.raises(HostError, match="cannot be read by the machine's own user") as caught:
        start(other, started)
    assert "chmod a+r" in (caught.value.hint or "")
    assert started.processes == []


def test_too_long_a_name_for_a_socket(spec: MachineSpec, started: Started) -> None:
    long = spec.runtime / ("x" * 100)
    long.mkdir()
    with pytest.raises(HostError, match="too long"):
        start(dataclasses.replace(spec, runtime=long), started)
    assert started.processes == []


def test_goals_are_looked_up_before_the_gate(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(names: Iterable[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
        asked.extend(names)
        return {"deb.example": ["192.0.2.7"]}, {"gone.example": "no such"}

    monkeypatch.setattr("bugbox.machine.qemu.launch.looked_up", look_up)
    assert _gate(spec, ()) == []
    goals = ("deb.example:80", "gone.example:443")
    nic = Nic(id="net", mac="52:54:00:12:34:56", restrict=False, reach=goals)
    *_, order = _gate(dataclasses.replace(spec, nics=(nic,)), ())
    told = json.loads(order)
    assert asked == ["deb.example", "gone.example"]
    assert told["found"] == {"deb.example": ["192.0.2.7"]}
    assert told["failed"] == {"gone.example": "no such"}
