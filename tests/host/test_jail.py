# SPDX-License-Identifier: Apache-2.0
"""Jails by the real jailer, a small static program in place of Firecracker; and what is left.

BUGBOX_JAILER names the jailer; no KVM is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bugbox.errors import HostError, MissingPrivilege, OutOfResources, StateError
from bugbox.host import cgroup, libc, proc
from bugbox.host.proc import Process, spawn, start_time
from bugbox.machine.firecracker.api import Api
from bugbox.machine.firecracker.jail import PARENT, Jail, JailLimits, Jails, mounts_below
from bugbox.network import namespace
from bugbox.network.firewall import Egress
from bugbox.network.net import Network
from tests.conftest import FACTOR
from tests.host.wires_world import network_reason

JAILER = Path(os.environ.get("BUGBOX_JAILER") or shutil.which("jailer") or "/nowhere/jailer")


def _reason() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if not os.access(JAILER, os.X_OK):
        return "needs Firecracker's jailer: BUGBOX_JAILER names it"
    if shutil.which("musl-gcc") is None:
        return "needs musl-gcc (apt-get install musl-tools)"
    try:
        cgroup.find()
    except HostError as error:
        return error.message
    return ""


pytestmark = [pytest.mark.host, pytest.mark.skipif(bool(_reason()), reason=_reason())]

FIRST_UID = 1_900_300_000
LIMITS = JailLimits(memory_bytes=96 << 20, cpus=0.5, pids=16, file_bytes=1 << 20, open_files=64)
NAME = f"bbjail{os.getpid()}"


class Place:
    """A state directory's jails, and what may be jailed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jails = Jails(folder / "jails", folder / "leases", first_uid=FIRST_UID, users=2)
        # Named as the jailer wants it.
        self.vmm = folder / "firecracker"
        self.started: list[Process] = []

    def owner(self, name: str = "one") -> Path:
        place = self.folder / "sessions" / name
        place.mkdir(parents=True, exist_ok=True)
        return place

    def jail(self, name: str = "one", netns: Path | None = None) -> Jail:
        return Jail(
            self.jails, self.owner(name), jailer=JAILER, vmm=self.vmm, limits=LIMITS, netns=netns
        )

    def run(self, jail: Jail) -> Process:
        process = spawn(jail.argv, log_file=self.folder / "vmm.log")
        self.started.append(process)
        return process

    def said(self) -> str:
        return (self.folder / "vmm.log").read_text()


SOURCE = """
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <stdlib.h>
#include <fcntl.h>
#include <errno.h>
#include <sys/socket.h>
/* Stands in for the VMM: says what it finds, does what the file /task asks for, and waits. */
int main(void) {
    char task[64] = "";
    int fd = open("/task", O_RDONLY);
    if (fd >= 0 && read(fd, task, sizeof task - 1) < 0) return 3;
    if (!strcmp(task, "eat")) {
        for (size_t n = 0; n < 512; n++) { char *p = malloc(1 << 20); memset(p, 1, 1 << 20); }
    } else if (!strcmp(task, "fork")) {
        int made = 0;
        for (int n = 0; n < 64; n++) {
            pid_t child = fork();
            if (child == 0) { pause(); _exit(0); }
            made += child > 0;
        }
        printf("forked %d\\n", made);
    } else if (!strcmp(task, "write")) {
        int out = open("/disk", O_WRONLY);
        char block[65536] = {1};
        /* SIGXFSZ ends it. */
        for (int n = 0; n < 64; n++) if (write(out, block, sizeof block) < 0) break;
        printf("wrote all\\n");
    } else if (!strcmp(task, "open")) {
        int made = 0;
        while (dup(0) >= 0) made++;
        printf("opened %d\\n", made);
    } else if (!strcmp(task, "read")) {
        printf("shared %s\\n", access("/shared", R_OK) ? "no" : "yes");
        printf("secret %s\\n", access("/secret", R_OK) ? "no" : "yes");
        printf("shared-write %s\\n", access("/shared", W_OK) ? "no" : "yes");
        printf("outside %s\\n", access("/etc/passwd", F_OK) ? "no" : "yes");
    }
    printf("up %d %d\\n", getuid(), getgid());
    fflush(stdout);
    for (;;) pause();
}
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vmm")
    (folder / "vmm.c").write_text(SOURCE)
    argv = ["musl-gcc", "-static", "-O1", "-o", folder / "firecracker", folder / "vmm.c"]
    subprocess.run(argv, check=True)
    return folder / "firecracker"


def groups() -> list[str]:
    """Every cgroup of ours, and the one above them."""
    mounts = set(cgroup.find().mounts.values())
    found = [path for mount in mounts for path in [mount / PARENT, *mount.glob(f"{PARENT}/*/")]]
    return sorted(str(path) for path in found if path.is_dir())


@pytest.fixture
def place(tmp_path: Path, stand_in: Path) -> Iterator[Place]:
    before = groups()
    made = Place(tmp_path)
    shutil.copy(stand_in, made.vmm)
    yield made
    left = {
        "cgroups": set(groups()) - set(before),
        "roots": list(tmp_path.glob("jails/*/*")),
        "processes": [process for process in made.started if process.alive],
        "mounts": str(tmp_path) in Path("/proc/self/mountinfo").read_text(),
    }
    # A test that failed in the middle is no reason to leave anything on this host.
    shutil.rmtree(tmp_path / "sessions", ignore_errors=True)
    made.jails.sweep()
    assert not any(left.values()), left


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60 * FACTOR
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def status(process: Process, key: str) -> str:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split(maxsplit=1)[1]
    raise AssertionError(key)


def test_user_rights_network_limits(place: Place) -> None:
    namespace.create(NAME)
    try:
        jail = place.jail(netns=namespace.path(NAME))
        jail.take()
        process = place.run(jail)
        until(lambda: "up" in place.said(), "the jailed program speaks")
        assert f"up {jail.uid} {jail.gid}" in place.said()
        assert jail.uid in (FIRST_UID, FIRST_UID + 1)
        assert status(process, "Uid").split() == [str(jail.uid)] * 4
        assert int(status(process, "CapEff"), 16) == 0
        assert int(status(process, "CapPrm"), 16) == 0
        assert namespace.users(NAME) == [process.pid]
        assert Path(f"/proc/{process.pid}/root").samefile(jail.root)
        found = cgroup.find()
        told = {
            setting.partition("=")[0]: setting.partition("=")[2]
            for setting in found.settings(
                cgroup.Limits(memory_bytes=LIMITS.memory_bytes, cpus=0.5, pids=16)
            )
        }
        for file, value in told.items():
            folder = found.mounts[file.split(".")[0]] / PARENT / jail.id
            assert (folder / file).read_text().strip() == value
            assert str(process.pid) in (folder / "cgroup.procs").read_text().split()
        bounds = Path(f"/proc/{process.pid}/limits").read_text()
        assert "Max open files            64 " in bounds
        assert f"Max file size             {1 << 20} " in bounds
        jail.give_back()
        assert not process.alive
    finally:
        namespace.remove(NAME)


@pytest.mark.parametrize(
    ("task", "says"),
    [("fork", "forked 15"), ("open", "opened 60")],
)
def test_it_takes_no_more_than_its_limit(place: Place, task: str, says: str) -> None:
    jail = place.jail()
    jail.take()
    (jail.root / "task").write_text(task)
    place.run(jail)
    until(lambda: "up" in place.said(), "it goes on")
    assert says in place.said()
    jail.give_back()


def test_memory_beyond_the_limit_ends_it_alone(place: Place) -> None:
    jail = place.jail()
    jail.take()
    (jail.root / "task").write_text("eat")
    process = place.run(jail)
    until(lambda: not process.alive, "the kernel ends it")
    assert "up" not in place.said()
    jail.give_back()


def test_a_file_beyond_the_limit(place: Place) -> None:
    jail = place.jail()
    jail.take()
    disk = place.owner() / "disk.raw"
    disk.write_bytes(b"")
    assert jail.path_in(disk, writable=True, name="disk") == "/disk"
    (jail.root / "task").write_text("write")
    process = place.run(jail)
    until(lambda: not process.alive, "SIGXFSZ ends it")
    assert "wrote" not in place.said()
    assert disk.stat().st_size == 1 << 20
    assert disk.stat().st_uid == jail.uid
    jail.give_back()
    assert disk.exists()


def test_what_is_put_in(place: Place, tmp_path: Path) -> None:
    """Shared files are linked and cannot be written; root's alone are copied; no others."""
    jail = place.jail()
    jail.take()
    shared, secret = tmp_path / "shared", tmp_path / "secret"
    shared.write_text("for all")
    secret.write_text("for root")
    secret.chmod(0o600)
    assert jail.path_in(shared) == "/shared"
    assert jail.path_in(shared) == "/shared"
    assert jail.path_in(secret) == "/secret"
    assert (jail.root / "shared").samefile(shared)
    assert not (jail.root / "secret").samefile(secret)
    assert secret.stat().st_uid == 0 and secret.stat().st_mode & 0o777 == 0o600
    other = Path("/dev/shm") / f"bugbox-test-{os.getpid()}"
    other.write_text("elsewhere")
    try:
        jail.path_in(other, name="elsewhere")
        assert (jail.root / "elsewhere").read_text() == "elsewhere"
        for wrong in ("a/b", "..", "../x"):
            with pytest.raises(StateError, match="no place in a jail"):
                jail.path_in(shared, name=wrong)
        (jail.root / "task").write_text("read")
        place.run(jail)
        until(lambda: "up" in place.said(), "it reads")
        words = dict(line.split() for line in place.said().splitlines() if line.count(" ") == 1)
        assert words == {"shared": "yes", "secret": "yes", "shared-write": "no", "outside": "no"}
        jail.give_back()
        assert other.read_text() == "elsewhere" and shared.read_text() == "for all"
    finally:
        other.unlink()


def test_mounts_are_found_behind_a_link_and_a_blank(place: Place, tmp_path: Path) -> None:
    real = tmp_path / "a state \u00e9"
    real.mkdir()
    (tmp_path / "home").symlink_to(real)
    base = tmp_path / "home/jails"
    place.jails = Jails(base, tmp_path / "leases", first_uid=FIRST_UID, users=2)
    jail = place.jail()
    jail.take()
    other = Path("/dev/shm") / f"bugbox-test-{os.getpid()}"
    other.write_text("elsewhere")
    try:
        jail.path_in(other, name="elsewhere")
        assert mounts_below(Path("/proc/self/mountinfo").read_bytes(), real)
        jail.give_back()
        assert not mounts_below(Path("/proc/self/mountinfo").read_bytes(), real)
        assert not list(base.glob("*/*"))
        # Another start may be about to make its own in there.
        assert jail.root.parent.parent.is_dir()
        assert other.read_text() == "elsewhere"
    finally:
        for mount in mounts_below(Path("/proc/self/mountinfo").read_bytes(), real):
            libc.unmount(str(mount))
        other.unlink()


def test_as_a_context_a_failure_too(place: Place) -> None:
    async def fail() -> None:
        async with place.jail() as jail:
            place.run(jail)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(fail())


def test_users_run_out_and_a_stale_one_comes_back(place: Place) -> None:
    one, two, three = (place.jail(name) for name in ("one", "two", "three"))
    one.take()
    two.take()
    assert one.uid != two.uid
    with pytest.raises(OutOfResources, match="all 2 user ids for jails of bugbox are in use"):
        three.take()
    process = place.run(one)
    until(lambda: "up" in place.said(), "it runs")
    shutil.rmtree(place.owner("one"))
    three.take()
    assert not process.alive, "its session is gone"
    assert three.uid == one.uid
    shutil.rmtree(place.owner("two"))
    assert place.jails.sweep() == ["jail of two"]
    three.give_back()
    three.give_back()


def test_its_processes_end_and_the_jail_stays(place: Place) -> None:
    one, two = place.jail("one"), place.jail("two")
    for jail in (one, two):
        jail.take()
    (one.root / "task").write_text("fork")
    ours, other = place.run(one), place.run(two)
    until(lambda: place.said().count("up") == 2, "both run")
    assert len(processes_of(one.uid)) == 16
    place.jails.end(place.owner("one"))
    assert not ours.alive and processes_of(one.uid) == []
    assert one.root.is_dir() and other.alive
    place.jails.end(place.owner("nobody"))
    one.give_back()
    two.give_back()


def test_a_jail_that_no_lease_knows(place: Place) -> None:
    jail = place.jail()
    jail.take()
    process = place.run(jail)
    until(lambda: "up" in place.said(), "it runs")
    (place.folder / "leases/user ids for jails.json").unlink()
    assert place.jails.sweep() == [f"jail {jail.id}"]
    assert not process.alive


#: Takes a jail, runs a program in it, gives it back; and dies at the N-th thing it does.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from bugbox.host import cgroup, libc, proc
from bugbox.host.lease import Leases
from bugbox.machine.firecracker import jail as jails

base, leases, owner, jailer, vmm, at = sys.argv[1:]
count = 0

def deadly(holder, name):
    real = getattr(holder, name)
    def call(*args, **options):
        global count
        count += 1
        if count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)
    setattr(holder, name, call)

for holder, names in (
    (os, "chown link"), (libc, "bind_mount unmount"), (Leases, "write"), (Path, "mkdir rmdir"),
    (cgroup.Cgroups, "remove limit_io"), (proc, "spawn"), (jails.shutil, "rmtree"),
    (proc.Process, "kill"),
):
    for each in names.split():
        deadly(holder, each)
made = jails.Jails(Path(base), Path(leases), first_uid=1900300000, users=2)
limits = jails.JailLimits(memory_bytes=96 << 20, pids=16, file_bytes=1 << 20)
jail = jails.Jail(made, Path(owner), jailer=Path(jailer), vmm=Path(vmm), limits=limits)
jail.take()
jail.path_in(Path(vmm), name="again")
process = proc.spawn(jail.argv, log_file=Path(owner, "vmm.log"))
while "up" not in Path(owner, "vmm.log").read_text():
    time.sleep(0.01)
jail.give_back()
"""


def test_killed_at_each_step(place: Place) -> None:
    before = groups()
    for at in range(1, 60):
        owner = place.owner(f"n{at}")
        argv = [place.jails.base, place.folder / "leases", owner, JAILER, place.vmm, str(at)]
        done = subprocess.run(
            [sys.executable, "-c", KILLED, *argv],
            capture_output=True,
            text=True,
            timeout=120 * FACTOR,
            check=False,
        )
        assert done.returncode in (0, -9), done.stderr
        shutil.rmtree(owner)
        place.jails.sweep()
        assert groups() == before, at
        assert not list(place.folder.glob("jails/*/*")), at
        assert processes_of(FIRST_UID, FIRST_UID + 1) == [], at
        if done.returncode == 0:
            break
    assert done.returncode == 0, "it was never let live to its end"
    assert at > 8


def processes_of(*uids: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and start_time(int(entry.name)) is not None:
            with contextlib.suppress(OSError):
                if entry.stat().st_uid in uids:
                    found.append(int(entry.name))
    return found


FIRECRACKER = Path(os.environ.get("BUGBOX_FIRECRACKER") or shutil.which("firecracker") or "/none")


def put(jail: Jail, what: str, body: dict[str, str]) -> tuple[int, str]:
    """Ask the jailed Firecracker for something; its status and answer."""
    sent = json.dumps(body).encode()
    head = f"PUT {what} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    folder = os.open(jail.root, os.O_PATH | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(30 * FACTOR)
        link.connect(f"/proc/self/fd/{folder}/api")  # a socket's path is short
        os.close(folder)
        link.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        said = link.recv(65536).decode()
    return int(said.split()[1]), said.partition("\r\n\r\n")[2]


@pytest.mark.skipif(
    not os.access(FIRECRACKER, os.X_OK), reason="needs Firecracker: BUGBOX_FIRECRACKER names it"
)
@pytest.mark.skipif(bool(network_reason()), reason=network_reason())
def test_the_real_firecracker_opens_its_tap_and_no_other(place: Place) -> None:
    """Without a right of its own: the tap is its user's. One that is not there is not made."""
    owner = place.owner()
    network = Network(place.folder / "leases", pool="10.213.64.0/20")
    uid = place.jails.take_uid(owner)
    with network.connected(owner, Egress(), uid=uid) as net:
        jail = Jail(
            place.jails,
            owner,
            jailer=JAILER,
            vmm=FIRECRACKER,
            limits=LIMITS,
            netns=net.netns,
        )
        jail.take()
        assert jail.uid == uid
        jail.argv += ["--api-sock", "/api"]
        process = place.run(jail)
        until(lambda: (jail.root / "api").exists() or not process.alive, "its API is there")
        card = {"iface_id": "net0", "guest_mac": net.mac, "host_dev_name": net.tap}
        assert put(jail, "/network-interfaces/net0", card) == (204, "")
        none = {"iface_id": "net1", "guest_mac": "52:54:00:00:00:01", "host_dev_name": "tap7"}
        status, said = put(jail, "/network-interfaces/net1", none)
        assert status == 400 and "Operation not permitted" in said
        there = Path(f"/proc/{process.pid}/net/dev").read_text()
        assert f"{net.tap}:" in there and "tap7:" not in there
        jail.give_back()
    assert not process.alive


@pytest.mark.skipif(
    not os.access(FIRECRACKER, os.X_OK), reason="needs Firecracker: BUGBOX_FIRECRACKER names it"
)
def test_the_real_firecracker_in_an_empty_network(place: Place) -> None:
    """It is in none of the host's, has no interface up, and is spoken to all the same."""
    jail = Jail(place.jails, place.owner(), jailer=JAILER, vmm=FIRECRACKER, limits=LIMITS)
    jail.take()
    jail.argv += ["--api-sock", "/api"]
    process = place.run(jail)
    until(lambda: (jail.root / "api").exists() or not process.alive, "its API is there")
    assert put(jail, "/entropy", {}) == (204, "")
    (place.folder / "api").symlink_to(jail.root / "api")

    async def ask() -> str:
        async with Api(place.folder / "api", factor=FACTOR) as api:
            return (await api.ready(30 * FACTOR)).state

    assert asyncio.run(ask()) == "Not started"
    _, _, *lines = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert len(Path(f"/proc/{process.pid}/net/route").read_text().splitlines()) <= 1
    assert not Path(f"/proc/{process.pid}/ns/net").samefile("/proc/self/ns/net")
    assert status(process, "Uid").split() == [str(jail.uid)] * 4
    jail.give_back()
    assert not process.alive


def test_a_program_that_cannot_be_jailed(place: Place) -> None:
    shutil.copy(Path("/bin/sh").resolve(), place.vmm)
    with pytest.raises(HostError, match="linked dynamically"):
        place.jail().take()
    # What the jailer says of it by itself, which is why we look first.
    base = place.folder / "by-hand"
    words = ["--id", "x", "--exec-file", place.vmm, "--uid", "1900399999", "--gid", "1900399999"]
    done = subprocess.run(
        [JAILER, *words, "--chroot-base-dir", base], capture_output=True, text=True, check=False
    )
    assert "No such file or directory" in done.stdout + done.stderr


def test_by_anybody_but_root(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingPrivilege, match="jails are for root"):
        place.jail().take()
    assert proc.find("sh")
