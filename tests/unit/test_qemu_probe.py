# SPDX-License-Identifier: Apache-2.0
"""Whether KVM works, by a probe boot: a program stands for QEMU."""

import asyncio
import os
from pathlib import Path

import pytest

from bugbox.config import Settings
from bugbox.errors import HostError
from bugbox.events import Event, Notice, listening
from bugbox.machine.qemu import probe as probe_module
from bugbox.machine.qemu.driver import QemuDriver
from bugbox.machine.qemu.probe import EMULATION, kvm_platform, probe
from bugbox.machine.spec import Kernel
from bugbox.paths import Home

MARKER = "[ 0.5] VFS: Unable to mount root fs on unknown-block(0,0)"


class Host:
    """A host whose QEMU does what `says` tells for each CPU model."""

    def __init__(self, folder: Path) -> None:
        self.vmlinux = folder / "vmlinux"
        self.vmlinux.write_bytes(b"kernel")
        self.cache = folder / "home" / "cache" / "kvm.json"
        self.home = Home(folder / "home")
        self.cache.parent.mkdir(parents=True)
        self.qemu = folder / "qemu"
        self._calls = folder / "calls"
        self.works(host=True, max=True)

    def works(self, *, host: bool, max: bool, version: str = "7.2.22") -> None:
        lines = [
            "#!/bin/sh",
            f"case $1 in --version) echo QEMU emulator version {version}; exit;; esac",
            f'echo "$@" >> {self._calls}',
            'case "$*" in',
            f'*"-cpu host"*) {self._does(host)};;',
            f'*"-cpu max"*) {self._does(max)};;',
            "esac",
        ]
        self.qemu.write_text("\n".join(lines) + "\n")
        self.qemu.chmod(0o755)

    @staticmethod
    def _does(works: bool) -> str:
        return f"echo '{MARKER}'" if works else "echo early lines; exit 1"

    @property
    def boots(self) -> int:
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0

    def ask(self) -> str | None:
        platform, _ = kvm_platform(self.cache, str(self.qemu), self.vmlinux, timeout=5)
        return platform.cpu if platform else None

    def driver(self, accel: str = "auto") -> QemuDriver:
        return QemuDriver(self.home, Settings(qemu=str(self.qemu), accel=accel))

    def platform(self, driver: QemuDriver) -> str:
        kernel = Kernel(vmlinux=self.vmlinux, initrd=None, release="6.1")
        return asyncio.run(driver.platform(kernel)).accel


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or real(path, mode))
    return Host(tmp_path)


def test_a_boot_decides_and_is_remembered(host: Host) -> None:
    assert host.ask() == "host" and host.boots == 1
    assert host.ask() == "host" and host.boots == 1


def test_the_next_cpu_model_is_tried(host: Host) -> None:
    host.works(host=False, max=True)
    assert host.ask() == "max" and host.boots == 2


def test_a_failure_is_remembered_too(host: Host) -> None:
    host.works(host=False, max=False)
    assert host.ask() is None and host.boots == 2
    host.works(host=True, max=True)
    assert host.ask() is None and host.boots == 2


@pytest.mark.parametrize("change", ["boot", "qemu", "kernel", "rubbish"])
def test_what_may_change_the_answer_asks_again(
    host: Host, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.works(host=False, max=False)
    assert host.ask() is None
    host.works(host=True, max=True, version="8.0" if change == "qemu" else "7.2.22")
    if change == "boot":
        monkeypatch.setattr(probe_module, "boot_id", lambda: "another")
    elif change == "kernel":
        host.vmlinux.write_bytes(b"another kernel")
    elif change == "rubbish":
        host.cache.write_text("[1")
    assert host.ask() == "host"


def test_a_qemu_that_hangs_is_ended(host: Host) -> None:
    host.qemu.write_text("#!/bin/sh\nsleep 300\n")
    assert probe(str(host.qemu), host.vmlinux, "host", timeout=0.3) is False


def test_without_the_device_nothing_is_started(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert host.ask() is None and host.boots == 0


def test_the_driver_falls_back_with_one_notice(host: Host) -> None:
    host.works(host=False, max=False)
    seen: list[Event] = []
    with listening(seen.append):
        driver = host.driver()
        assert host.platform(driver) == "tcg" and host.platform(driver) == "tcg"
        assert host.platform(host.driver()) == "tcg"
    notices = [event.text for event in seen if isinstance(event, Notice)]
    assert len(notices) == 1 and "emulated" in notices[0], "once a boot of the host"
    assert not driver.abilities.accelerated


def test_settings_decide(host: Host) -> None:
    driver = host.driver("kvm")
    assert host.platform(driver) == "kvm" and driver.abilities.accelerated
    assert host.platform(host.driver("tcg")) == "tcg"
    assert EMULATION.accel == "tcg"
    host.cache.unlink()
    host.works(host=False, max=False)
    with pytest.raises(HostError, match="KVM does not work here"):
        host.platform(host.driver("kvm"))
