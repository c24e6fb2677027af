# SPDX-License-Identifier: Apache-2.0
"""A base image is built once, by one builder at a time, and never half.

Real processes, namespaces, tar, mke2fs; only mmdebstrap is a stand-in that makes a tiny root.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bugbox.config import Settings
from bugbox.errors import BuildFailed, HostError, NotFound, OutOfResources
from bugbox.events import Progress, StepFinished, listening
from bugbox.host import proc
from bugbox.image import rootfs, store
from bugbox.paths import Home
from bugbox.storage.privilege import as_root

MMDEBSTRAP = """\
#!/bin/sh
# Where the root goes is known by name: no need to read the arguments.
set -eu
echo run >>"$FAKE/runs"
echo $$ >"$FAKE/pid"
root=$BUGBOX_WORK/root
echo "I: running apt-get update..." >"$BUGBOX_WORK/log"
mkdir -p "$root"
cd "$root"
mkdir -p dev etc/ssh run tmp usr/lib usr/share var/tmp var/log var/lib/dpkg/info var/lib/apt/lists
touch etc/ssh/ssh_host_rsa_key
echo "secret" >etc/machine-id
echo "learner:!:20000:0:99999:7:::" >etc/shadow
printf 'Package: strace\\nStatus: install ok installed\\nVersion: 6.1\\nArchitecture: amd64\\n' \\
    >var/lib/dpkg/status
cp "$BUGBOX_WORK/overlay.tar" var/overlay.tar
echo 1700000000 >"$BUGBOX_WORK/epoch"
if [ -e "$FAKE/fail" ]; then
    echo "E: No space left on device" >&2
    exit 1
fi
sleep "$(cat "$FAKE/seconds")"
"""

ENSURE = """\
import sys
from bugbox.config import Settings
from bugbox.events import Notice, listening
from bugbox.host import proc
from bugbox.image import store
from bugbox.paths import Home

def tell(event):
    if isinstance(event, Notice):
        print(event.text, flush=True)

with listening(tell):
    print(store.ensure_base(Home(), Settings()).digest, flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A stand-in for mmdebstrap, first on PATH."""
    try:
        as_root()
    except HostError as error:
        pytest.skip(f"this host builds no images: {error}")
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "mmdebstrap").write_text(MMDEBSTRAP.replace("$FAKE", str(folder)))
    (folder / "mmdebstrap").chmod(0o755)
    (folder / "seconds").write_text("0")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("bugbox.image.debian._KEYRING", folder)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A state folder with a kernel in its store."""
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    home = Home()
    home.prepare()
    kernel = home.kernels / "6.1-test"
    (kernel / "modules/kernel").mkdir(parents=True)
    (kernel / "modules/kernel/loop.ko").write_bytes(b"module")
    manifest = {"format": 1, "digest": "ab" * 32, "release": "6.1-test", "packages": ["k=1"]}
    (kernel / "manifest.json").write_text(json.dumps(manifest))
    return home


def runs(fake: Path) -> int:
    return len((fake / "runs").read_text().split())


def left_over(home: Home) -> list[str]:
    return [path.name for path in home.tmp.iterdir() if not path.name.startswith(".")]


def debugfs(image: Path, command: str) -> str:
    shown = subprocess.run(
        [proc.find("debugfs"), "-R", command, str(image)], capture_output=True, text=True
    )
    return shown.stdout


def ensure() -> subprocess.Popen[str]:
    # Keys are on this host or not; the stand-in needs none.
    code = "import bugbox.image.debian as d, pathlib; d._KEYRING = pathlib.Path('/')\n" + ENSURE
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def test_an_image_is_built_once_and_found_again(fake, home):
    assert store.find_base(home) is None
    first = store.ensure_base(home, Settings())
    second = store.ensure_base(home, Settings())
    assert first == second == store.find_base(home)
    assert runs(fake) == 1
    assert first.packages == ("strace=6.1",)
    assert first.rootfs.stat().st_size == first.size_bytes
    assert left_over(home) == []


def test_the_image_holds_the_recipe_and_no_secret(fake, home):
    image = store.ensure_base(home, Settings()).rootfs
    assert "Type: regular" in debugfs(image, "stat /var/overlay.tar")
    assert "Type: bad type" not in debugfs(image, "stat /etc/machine-id")
    assert "Size: 0" in debugfs(image, "stat /etc/machine-id")
    assert "ssh_host_rsa_key" not in debugfs(image, "ls -l /etc/ssh")
    assert debugfs(image, "cat /etc/hostname") == "bugbox\n"
    # Clamped to the day of the package lists: 1700000000 s / 86400.
    assert debugfs(image, "cat /etc/shadow") == "learner:!:19675:0:99999:7:::\n"
    assert "User:     0   Group:     0" in debugfs(image, "stat /etc/hostname")


def tree(image: Path) -> str:
    """Every inode of an image, without what no tool can set: times of change and of making."""
    lines = debugfs(image, "stat <2>").splitlines()
    for number in range(11, 80):
        lines += debugfs(image, f"stat <{number}>").splitlines()
    return "\n".join(
        line for line in lines if not line.startswith((" ctime", " atime", "crtime", " crtime"))
    )


def test_two_builds_make_the_same_tree(fake, home):
    first = store.ensure_base(home, Settings())
    seen = tree(first.rootfs)
    assert "mtime: 0x6553f100" in seen
    store.remove_image(home, first.digest[:12])
    assert store.find_base(home) is None
    second = store.ensure_base(home, Settings())
    assert second.digest == first.digest
    assert runs(fake) == 2
    assert [
        a
        for a in zip(seen.splitlines(), tree(second.rootfs).splitlines(), strict=True)
        if a[0] != a[1] and "checksum" not in a[0]
    ] == []


def test_another_kernel_or_recipe_is_another_image(fake, home, monkeypatch):
    first = store.ensure_base(home, Settings())
    monkeypatch.setattr("bugbox.image.recipe.BUILDER", 999)
    assert store.find_base(home) is None
    second = store.ensure_base(home, Settings())
    assert second.digest != first.digest
    assert [image.digest for image in store.images(home)] == [first.digest, second.digest]


def test_two_processes_build_once(fake, home):
    (fake / "seconds").write_text("2")
    with ensure() as one:
        wait_for(fake / "pid")
        with ensure() as two:
            first, _ = one.communicate(timeout=60)
            second, _ = two.communicate(timeout=60)
    assert second.splitlines() == [
        "another bugbox is building the base image debian-12: waiting for it",
        first.strip(),
    ]
    assert runs(fake) == 1


def test_a_killed_build_leaves_no_image_and_no_process(fake, home):
    (fake / "seconds").write_text("300")
    with ensure() as builder:
        wait_for(fake / "pid")
        builder.send_signal(signal.SIGKILL)
        builder.wait()
    deadline = time.monotonic() + 10
    while running(home):
        assert time.monotonic() < deadline, "the build goes on without its builder"
        time.sleep(0.02)
    assert store.images(home) == []
    assert store.find_base(home) is None
    assert len(left_over(home)) == 1
    (fake / "seconds").write_text("0")
    assert store.ensure_base(home, Settings()).rootfs.exists()
    assert left_over(home) == []


def running(home: Home) -> list[str]:
    """Command lines that name something in the state folder, of processes other than us."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(home.tmp) in words and int(path.parent.name) != os.getpid():
            found.append(words)
    return found


def test_a_failed_build_says_why_and_leaves_nothing(fake, home):
    (fake / "fail").touch()
    finished = []
    with pytest.raises(BuildFailed, match="could not make bookworm") as caught:
        with listening(lambda e: finished.append(e) if isinstance(e, StepFinished) else None):
            store.ensure_base(home, Settings())
    assert "No space left" in (caught.value.detail or "")
    assert "full" in (caught.value.hint or "")
    assert [event.title for event in finished if event.error] == ["Build base image debian-12"]
    assert store.images(home) == []
    assert left_over(home) == []


def test_progress_is_told(fake, home):
    (fake / "seconds").write_text("1.2")
    seen = []
    with listening(seen.append):
        store.ensure_base(home, Settings())
    assert any(isinstance(e, Progress) and e.title == "reading package lists" for e in seen)


def test_a_full_disk_is_said_before_anything_is_fetched(fake, home, monkeypatch):
    monkeypatch.setattr("bugbox.image.rootfs._NEEDS", 1 << 60)
    with pytest.raises(OutOfResources):
        store.ensure_base(home, Settings())
    assert not (fake / "runs").exists()


def test_an_image_without_its_manifest_is_never_used(fake, home):
    image = store.ensure_base(home, Settings())
    (image.folder / "manifest.json").write_text('{"format": 1, "na')
    assert store.find_base(home) is None
    assert store.images(home) == []


def test_estimate_names_what_is_missing(fake, home, tmp_path):
    def missing(where: Home) -> list[str]:
        return [estimate.what for estimate in store.estimate(where)]

    assert missing(Home(tmp_path / "empty")) == ["Debian's kernel", "initramfs", "base image"]
    store.ensure_base(home, Settings())
    assert "base image" not in missing(home)
    total = store.estimate(Home(tmp_path / "empty"))
    assert 100 << 20 < sum(e.download_bytes for e in total) < 600 << 20
    assert 0 < sum(e.seconds for e in total) < 300


def test_removing_what_is_not_there(home):
    with pytest.raises(NotFound, match="'nothing'"):
        store.remove_image(home, "nothing")
    with pytest.raises(NotFound):
        store.remove_image(home, "")


def test_a_host_without_debians_keys_is_told_what_to_install(home, monkeypatch, tmp_path):
    monkeypatch.setattr("bugbox.image.debian._KEYRING", tmp_path / "none")
    with pytest.raises(HostError) as caught:
        store.ensure_base(home, Settings())
    assert caught.value.hint == "apt-get install debian-archive-keyring"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: [1],
        lambda values: values | {"packages": 3},
        lambda values: {key: value for key, value in values.items() if key != "sha256"},
    ],
)
def test_an_odd_manifest_hides_no_other(tmp_path, spoil):
    home = Home(tmp_path / "home")
    home.prepare()
    whole = {
        "format": 1, "digest": "d", "recipe": "r", "name": "n", "size_bytes": 1, "later": 2,
        "packages": ["a=1"], "kernel_release": "6.1", "sha256": "s",
    }  # fmt: skip
    for name, values in (("good", whole), ("odd", spoil(whole))):
        (home.images / name).mkdir(parents=True)
        (home.images / name / "manifest.json").write_text(json.dumps(values))
    assert [image.folder.name for image in rootfs.built(home)] == ["good"]
