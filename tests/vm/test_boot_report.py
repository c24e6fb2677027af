# SPDX-License-Identifier: Apache-2.0
"""`bugbox boot report` on a machine of our own: one clock from the command to ready."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bugbox.image import store
from bugbox.paths import Home
from tests.conftest import Bugbox

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]


def test_the_boot_of_a_session(bugbox: Bugbox, tmp_path: Path) -> None:
    started = bugbox.json("start", "--image", "debian-12", "--cold", timeout=300)
    picture = tmp_path / "boot.svg"
    told = bugbox.json("boot", "report", started["id"], "--svg", str(picture))
    phases = {phase["name"]: phase for phase in told["phases"]}
    assert [*phases] == ["vmm", "kernel", "initramfs", "init", "session"]
    # What the report adds up to is what the start took.
    total = started["timings_ms"]["total"] / 1000
    assert told["seconds"] == pytest.approx(total, rel=0.2, abs=0.5)
    marks = [mark["name"] for mark in told["marks"]]
    order = ["VMM started", "lifeline", "modules", "root", "init", "systemd finished", "ready"]
    assert [name for name in marks if name in order] == order
    units = {unit["name"] for unit in told["units"]}
    assert {"systemd-journald.service", "systemd-udevd.service", "dbus.service"} <= units
    assert told["critical_chain"][-1] == "multi-user.target"
    assert not [f for f in told["findings"] if f["cause"] in ("i8042-aux", "atkbd-getid")]
    ElementTree.fromstring(picture.read_text())
    assert "chain of units" in bugbox("boot", "report").stdout.decode()


def test_a_kernel_of_our_own_boots_a_whole_machine(built: Home, bugbox: Bugbox) -> None:
    """Its build takes too long for every day: booted where one is in the store."""
    own = [kernel for kernel in store.kernels(built) if kernel.profile]
    if not own:
        pytest.skip("no kernel of our own in the store: bugbox kernel build")
    id = bugbox.start("--image", "debian-12", "--cold", "--kernel", own[-1].release)
    assert bugbox.root(id, "uname -r").strip() == own[-1].release
    # What a debugging guest is for.
    for line in (
        "test -d /sys/kernel/tracing/events/syscalls",
        "nft add table inet x && nft list ruleset | grep -q x",
        "ip netns add a && ip link add v type veth peer name w netns a",
        "dd if=/dev/zero of=/tmp/d bs=1M count=8 && losetup -f --show /tmp/d",
        "unshare --user --map-root-user --pid --fork true",
        "grep -q overlay /proc/filesystems && grep -q erofs /proc/filesystems",
        'test -z "$(systemctl --failed --plain --no-legend)"',
    ):
        bugbox.root(id, f"set -e; {line}")
