# SPDX-License-Identifier: Apache-2.0
"""`bugbox boot report` on a machine of our own: one clock from the command to ready."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

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
