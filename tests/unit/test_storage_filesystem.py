# SPDX-License-Identifier: Apache-2.0
"""An ext4 image keeps what a root filesystem is made of, made by root or by anybody."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bugbox.errors import CommandFailed, HostError, OutOfResources
from bugbox.host import proc
from bugbox.storage.file import remove_tree, workspace
from bugbox.storage.filesystem import make_ext4
from bugbox.storage.privilege import as_root

UUID = "5e7b1a3c-0000-4000-8000-000000000001"
WHEN = 1_700_000_000

FILL = """
set -eu
cd "$1"
echo plain >plain; ln plain second; ln -s plain link
echo other >other; chown 1000:1001 other; chmod 4750 other
echo acl >acl; setfacl -m u:1000:--- acl
mkdir box; setfacl -d -m u:1000:rwx box
cp /bin/true can; setcap cap_net_raw+ep can
setfattr -n user.note -v hello plain
mkfifo pipe
truncate -s 5M hole
touch -d @1234567890 plain
"""


@pytest.fixture
def root() -> tuple[str, ...]:
    try:
        return as_root()
    except HostError as error:
        pytest.skip(f"this host makes no images: {error}")


@pytest.fixture
def filled(tmp_path: Path, root: tuple[str, ...]):
    for tool in ("setfacl", "setcap", "debugfs"):
        if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin"):
            pytest.skip(f"no {tool} on this host")
    with workspace(tmp_path, "fill") as work:
        tree = work / "tree"
        tree.mkdir()
        proc.run([*root, "sh", "-c", FILL, "fill", tree], timeout=60)
        yield tree


def make(image: Path, tree: Path, root: tuple[str, ...], size: int = 32 << 20) -> None:
    make_ext4(image, tree, size_bytes=size, label="test", uuid=UUID, when=WHEN, prefix=root)


def ask(image: Path, command: str) -> str:
    argv = [proc.find("debugfs"), "-R", command, str(image)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_owners_modes_links_and_times(filled, root, tmp_path):
    image = tmp_path / "i.ext4"
    make(image, filled, root)
    other = ask(image, "stat /other")
    assert "Mode:  04750" in other
    assert "User:  1000   Group:  1001" in other
    assert "User:     0   Group:     0" in ask(image, "stat /plain")
    assert "Links: 2" in ask(image, "stat /second")
    assert 'Fast link dest: "plain"' in ask(image, "stat /link")
    assert "Type: FIFO" in ask(image, "stat /pipe")
    assert "mtime: 0x499602d2:" in ask(image, "stat /plain")
    assert subprocess.run([proc.find("e2fsck"), "-fn", image], check=False).returncode == 0


def test_acls_capabilities_and_attributes(filled, root, tmp_path):
    image = tmp_path / "i.ext4"
    make(image, filled, root)
    assert "system.posix_acl_access" in ask(image, "ea_list /acl")
    assert "system.posix_acl_default" in ask(image, "ea_list /box")
    assert "user.note" in ask(image, "ea_list /plain")
    # Version 2, effective, cap_net_raw alone: what a root without namespaces writes.
    raw = ask(image, "ea_get -x /can security.capability")
    assert "01 00 00 02 00 20 00 00" in raw
    assert "(20)" in raw or len(raw.split("=")[-1].split()) == 20


def test_holes_stay_holes(filled, root, tmp_path):
    image = tmp_path / "i.ext4"
    make(image, filled, root)
    assert "Blockcount: 0" in ask(image, "stat /hole")
    assert image.stat().st_size == 32 << 20
    assert image.stat().st_blocks * 512 < 8 << 20


def test_what_does_not_fit_leaves_no_image(tmp_path, root):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/big").write_bytes(b"x" * (12 << 20))
    with pytest.raises((OutOfResources, CommandFailed)):
        make(tmp_path / "i.ext4", tmp_path / "tree", root, size=8 << 20)
    assert not (tmp_path / "i.ext4").exists()


def test_a_tree_of_other_users_files_can_be_removed(filled):
    remove_tree(filled)
    assert not filled.exists()


def test_what_runs_as_root_dies_with_us(root, tmp_path):
    script = (
        "from bugbox.host import proc\nfrom bugbox.storage.privilege import as_root\nimport sys\n"
        "proc.run([*as_root(), 'sh', '-c', 'echo up >$0; sleep 61.25', sys.argv[1]], timeout=90)"
    )
    mark = tmp_path / "mark"
    child = subprocess.Popen([sys.executable, "-c", script, str(mark)])
    deadline = time.monotonic() + 30
    while not mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert _sleepers()
    child.kill()
    child.wait()
    while _sleepers():
        assert time.monotonic() < deadline, "it goes on without us"
        time.sleep(0.02)


def _sleepers() -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x0061.25\0":
                found.append(path)
        except OSError:
            continue
    return found
