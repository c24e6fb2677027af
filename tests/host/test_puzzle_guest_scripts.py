# SPDX-License-Identifier: Apache-2.0
"""The scripts of the build machine, run on this host: what overlayfs notes arrives on the disk.

Every row of what an upper directory can hold, and a plain untar of it would lose, is a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bugbox.paths import DATA
from bugbox.puzzle.inputs import EPOCH, NEVER
from bugbox.puzzle.losses import losses
from bugbox.puzzle.unpack import lists
from bugbox.storage.archive import Entry, scan

TOOLS = ("busybox", "getfattr", "getfacl", "losetup", "mkfs.ext4", "unshare")
SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _reason() -> str:
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=SBIN) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    return ""


pytestmark = [pytest.mark.host, pytest.mark.skipif(bool(_reason()), reason=_reason())]

FOLDERS = (
    *("bin", "etc/old/deep", "etc/keep", "dev", "proc", "sys", "run", "tmp"),
    *("usr/bin", "usr/sbin", "srv", "var"),
)

#: Builds with the scripts as they are, on loop devices, in a mount namespace of its own.
DRIVE = """
set -eu
guest=$1 folder=$2 work=$2/work never=$3
mkdir "$work"
truncate -s 64M "$2/scratch.img"
cp "$2/base.img" "$2/target.img"
base=$(losetup --read-only --find --show "$2/base.img")
scratch=$(losetup --find --show "$2/scratch.img")
target=$(losetup --find --show "$2/target.img")
end() {
    set +e
    cd /
    umount "$folder/seen" "$work/scratch/merged" "$work/target" "$work/scratch" "$work/base"
    losetup --detach "$base" "$scratch" "$target"
} 2>/dev/null
trap end EXIT
bash "$guest/prepare.sh" "$work" "$base" "$scratch" "$target"
cp "$2/inputs.tar" "$work/scratch/inputs.tar"
bash "$guest/run.sh" "$work" EPOCH
bash "$guest/collect.sh" "$work" EPOCH $never >"$2/lost"
bash "$guest/archive.sh" "$work" >"$2/layer.tar"
bash "$guest/apply.sh" "$work"
! grep -q "$work" /proc/mounts
mkdir "$2/seen"
mount -o ro "$target" "$2/seen"
(cd "$2/seen" && sh "$2/look.sh") >"$2/looked"
""".replace("EPOCH", str(EPOCH))

#: Brings the tar that came out onto the base again, as for a layer from elsewhere.
UNPACK = """
set -eu
guest=$1 folder=$2 work=$2/work2
mkdir "$work"
truncate -s 64M "$2/scratch.img"
cp "$2/base.img" "$2/target.img"
base=$(losetup --read-only --find --show "$2/base.img")
scratch=$(losetup --find --show "$2/scratch.img")
target=$(losetup --find --show "$2/target.img")
end() {
    set +e
    cd /
    umount "$folder/seen" "$work/scratch/merged" "$work/target" "$work/scratch" "$work/base"
    losetup --detach "$base" "$scratch" "$target"
} 2>/dev/null
trap end EXIT
bash "$guest/prepare.sh" "$work" "$base" "$scratch" "$target"
cp "$2/layer.tar" "$2/deletions" "$2/folders" "$2/others" "$work/scratch"
bash "$guest/unpack.sh" "$work"
! grep -q "$work" /proc/mounts
mount -o ro "$target" "$2/seen"
(cd "$2/seen" && sh "$2/look.sh") >"$2/looked"
"""


class Build:
    """One build on a base that is little more than busybox."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = folder / "base"
        for name in FOLDERS:
            (base / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", base / "bin/busybox")
        for applet in ("sh", "cat", "chmod", "mkdir", "ln", "rm", "mv", "touch", "sleep", "mkfifo"):
            (base / "bin" / applet).symlink_to("busybox")
        (base / "usr/bin/env").symlink_to("/bin/busybox")
        for name in ("etc/motd", "etc/old/a", "etc/old/deep/b", "etc/file", "etc/keep/c"):
            (base / name).write_text(f"{name} of the base\n")
        subprocess.run(["find", base, "-exec", "touch", "-hd", "2023-03-03", "{}", "+"], check=True)

    def run(self, script: str, look: str) -> tuple[str, dict[str, Entry]]:
        """Run build.sh, then look.sh in the disk that came out: what that said, and the tar."""
        inputs = self.folder / "inputs"
        inputs.mkdir()
        (inputs / "build.sh").write_text(f"#!/bin/sh\nset -eu\n{script}")
        (inputs / "build.sh").chmod(0o755)
        (self.folder / "look.sh").write_text(look)
        (self.folder / "drive.sh").write_text(DRIVE)
        env = {**os.environ, "PATH": SBIN}
        image = self.folder / "base.img"
        make = ["mkfs.ext4", "-q", "-d", self.folder / "base", image, "64M"]
        subprocess.run(make, check=True, env=env)
        # The root's time is the moment of mkfs, which may be the second in which the build begins.
        old = ["debugfs", "-w", "-R", "set_inode_field / mtime 20230303000000", image]
        subprocess.run(old, check=True, env=env, capture_output=True)
        subprocess.run(["tar", "-C", inputs, "-cf", self.folder / "inputs.tar", "."], check=True)
        self._drive()
        said = (self.folder / "looked").read_text()
        with (self.folder / "layer.tar").open("rb") as tar:
            entries = {entry.name: entry for entry in scan(tar)}
        for name, data in lists(list(entries.values())).items():
            (self.folder / name).write_bytes(data)
        (self.folder / "drive.sh").write_text(UNPACK)
        self._drive()
        assert (self.folder / "looked").read_text() == said, "unpacked, it is another disk"
        return said, entries

    def _drive(self) -> None:
        drive = ["unshare", "--mount", "bash", self.folder / "drive.sh"]
        done = subprocess.run(
            [*drive, DATA / "puzzle" / "guest", self.folder, " ".join(NEVER)],
            env={**os.environ, "PATH": SBIN},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_deletions(machine: Build) -> None:
    said, entries = machine.run(
        "rm /etc/motd\nrm -r /etc/old\n", "ls etc; test -e etc/motd || echo gone"
    )
    assert said == "file\nkeep\ngone\n"
    assert {entry.hides for entry in entries.values()} == {None, "etc/motd", "etc/old"}


def test_a_directory_made_anew_is_empty_of_the_old(machine: Build) -> None:
    said, entries = machine.run(
        "rm -r /etc/old\nmkdir /etc/old\ntouch /etc/old/new\n", "find etc/old | sort"
    )
    assert said == "etc/old\netc/old/new\n"
    assert entries["etc/old/.wh..wh..opq"].hides == "etc/old"


def test_a_new_directory_hides_nothing(machine: Build) -> None:
    _, entries = machine.run("mkdir -p /etc/fresh/in\n", "true")
    assert all(entry.hides is None for entry in entries.values())


def test_files_become_directories_and_the_other_way_round(machine: Build) -> None:
    said, _ = machine.run(
        "rm -r /etc/old\necho flat >/etc/old\nrm /etc/file\nmkdir /etc/file\ntouch /etc/file/in\n"
        "rm -r /etc/keep\nln -s file /etc/keep\n",
        "cat etc/old; ls etc/file; readlink etc/keep",
    )
    assert said == "flat\nin\nfile\n"


def test_a_renamed_directory_keeps_its_contents(machine: Build) -> None:
    said, _ = machine.run("mv /etc/old /etc/moved\n", "cat etc/moved/deep/b; ls etc")
    assert said == "etc/old/deep/b of the base\nfile\nkeep\nmotd\nmoved\n"


def test_a_changed_mode_keeps_the_contents(machine: Build) -> None:
    said, _ = machine.run("chmod 600 /etc/file\n", "cat etc/file; stat -c %a etc/file")
    assert said == "etc/file of the base\n600\n"


def test_hard_links_stay_links(machine: Build) -> None:
    said, entries = machine.run(
        "echo x >/srv/a\nln /srv/a /srv/b\nln /etc/file /srv/c\n",
        "stat -c %h srv/a etc/file; test srv/a -ef srv/b && test etc/file -ef srv/c && echo same",
    )
    assert said == "2\n2\nsame\n"
    assert entries["srv/b"].link_to == "srv/a"


def test_odd_names_come_through(machine: Build) -> None:
    name = "od'd\\012 \u00e9\nname\t"
    machine.folder.joinpath("base/etc", name).mkdir()
    machine.folder.joinpath("base/etc", name, "below").touch()
    quoted = "'" + name.replace("'", "'\\''") + "'"
    said, entries = machine.run(
        f"rm -r /etc/{quoted}\nmkdir /etc/{quoted}\ntouch /etc/{quoted}/new\n", f"ls etc/{quoted}"
    )
    assert said == "new\n"
    assert entries[f"etc/{name}/.wh..wh..opq"].hides == f"etc/{name}"


def test_times_of_the_build_are_one_and_older_ones_stay(machine: Build) -> None:
    said, entries = machine.run(
        "touch /srv/now\ntouch -d '2001-02-03 04:05:06' /srv/old\n"
        "touch -d '2035-01-01' /srv/later\nrm /etc/motd\n",
        "stat -c %Y srv/now srv/old srv/later srv etc etc/keep .",
    )
    now, old, later, srv, etc, keep, root = map(int, said.split())
    assert now == later == srv == etc == EPOCH
    assert old == 981173106
    assert keep == 1677801600
    # The root's is the base's own, although the build's helpers stood right below it.
    assert root == entries["."].mtime_ns // 10**9 != EPOCH


def test_what_never_belongs_to_a_layer_is_left_out(machine: Build) -> None:
    said, entries = machine.run(
        "mkdir -p /etc/ssh /var/lib/apt/lists /var/log/journal/x /srv/puzzle /srv/tmp\n"
        "echo id >/etc/machine-id\necho key >/etc/ssh/ssh_host_rsa_key\n"
        "echo conf >/etc/ssh/config\n"
        "touch /var/lib/apt/lists/l /var/log/journal/x/y /tmp/t /run/r /puzzle/p\n"
        "touch /srv/puzzle/kept /srv/tmp/kept\n",
        "find etc/ssh etc/machine-id var srv puzzle tmp/t run/r 2>/dev/null | sort",
    )
    assert said.split() == [
        *("etc/ssh", "etc/ssh/config", "srv", "srv/puzzle", "srv/puzzle/kept"),
        *("srv/tmp", "srv/tmp/kept", "var", "var/lib", "var/lib/apt", "var/lib/apt/lists"),
        *("var/log", "var/log/journal"),
    ]
    assert not {"puzzle", "tmp", "run", "dev", "proc", "sys", "usr/sbin"} & entries.keys()


def test_the_build_sees_a_small_world_and_leaves_nothing_running(machine: Build) -> None:
    said, _ = machine.run(
        "cat /proc/1/comm >/srv/comm\npwd >/srv/where\n"
        "for disk in /dev/loop0 /dev/vda /dev/sda; do test ! -e $disk; done\n"
        "env >/srv/env\nsleep 1000 &\n",
        "cat srv/comm srv/where srv/env",
    )
    comm, where, *env = said.splitlines()
    assert (comm, where) == ("build.sh", "/puzzle")
    assert {"SYSTEMD_OFFLINE=1", f"SOURCE_DATE_EPOCH={EPOCH}", "HOME=/root"} <= set(env)
    assert not any("BUGBOX" in line for line in env)


def test_what_no_tar_carries_is_told(machine: Build) -> None:
    # busybox has no chattr: the host's, with the libraries it names.
    listed = subprocess.run(["ldd", "/usr/bin/chattr"], capture_output=True, text=True, check=True)
    for path in ("/usr/bin/chattr", *re.findall(r"(/\S+) \(0x", listed.stdout)):
        to = machine.folder / "base" / path.removeprefix("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    machine.run(
        "touch /srv/plain /srv/quiet '/srv/odd name'\nchattr +A /srv/quiet\n"
        "mkdir /srv/d\nchattr +d '/srv/odd name' /srv/d\n",
        "true",
    )
    told = losses((machine.folder / "lost").read_bytes())
    assert sorted(each.split(", which")[0] for each in told) == [
        "/srv/d has chattr's +d",
        "/srv/odd name has chattr's +d",
        "/srv/quiet has chattr's +A",
    ]


def test_names_reserved_for_deletions_are_refused(machine: Build) -> None:
    with pytest.raises(AssertionError, match=r"\.wh\.x: names that begin with"):
        machine.run("touch /srv/.wh.x\n", "true")
