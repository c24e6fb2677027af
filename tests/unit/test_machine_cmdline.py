# SPDX-License-Identifier: Apache-2.0
"""The kernel's arguments."""

from pathlib import Path

import pytest

from bugbox.machine.cmdline import kernel_args
from bugbox.machine.spec import Kernel, MachineSpec


def spec(*extra: str) -> MachineSpec:
    kernel = Kernel(vmlinux=Path("/k"), initrd=Path("/i"), release="6.1", extra_args=extra)
    return MachineSpec(id="m", kernel=kernel, drives=(), root=Path("/r"), runtime=Path("/s"))


def test_emulated() -> None:
    assert kernel_args(spec(), tsc_khz=2596120, accel="tcg").split() == [
        "console=ttyS0",
        "quiet",
        "reboot=t",
        "panic=-1",
        "tsc_early_khz=2596120",
        "tsc=reliable",
        "bugbox.lapic_khz=1000000",
        "no_timer_check",
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        "mitigations=off",
        "random.trust_cpu=on",
        "rcupdate.rcu_expedited=1",
        "nowatchdog",
        "sysctl.vm.compaction_proactiveness=0",
        "norandmaps",
        "net.ifnames=0",
        "bugbox.root=/dev/vda",
        "bugbox.rootfstype=ext4",
        "bugbox.init=/sbin/init",
    ]


@pytest.mark.parametrize(("accel", "khz"), [("kvm", 2596120), ("kvm", None), ("tcg", None)])
def test_no_rate_is_told_where_none_is_known_or_needed(accel: str, khz: int | None) -> None:
    assert "tsc" not in kernel_args(spec(), tsc_khz=khz, accel=accel)  # type: ignore[arg-type]


def test_kvm_has_another_timer() -> None:
    assert "lapic" not in kernel_args(spec(), tsc_khz=1, accel="kvm")


def test_kvm_translates_nothing() -> None:
    assert "norandmaps" not in kernel_args(spec(), tsc_khz=1, accel="kvm").split()


def test_firecracker_has_a_vsock_and_reboots_by_its_keyboard_controller() -> None:
    qemu = kernel_args(spec(), tsc_khz=None, accel="kvm").split()
    other = kernel_args(spec(), tsc_khz=None, accel="kvm", vmm="firecracker").split()
    assert set(qemu) - set(other) == {"reboot=t"}
    assert set(other) - set(qemu) == {
        *("reboot=k", "8250.nr_uarts=1", "bugbox.lifeline=vsock"),
    }


def test_an_extra_argument_replaces_ours_of_the_same_name() -> None:
    words = kernel_args(spec("bugbox.init=none", "loglevel=7"), tsc_khz=1, accel="tcg").split()
    assert [w for w in words if w.startswith("bugbox.init")] == ["bugbox.init=none"]
    assert words[-2:] == ["bugbox.init=none", "loglevel=7"]


def test_init() -> None:
    assert "bugbox.init=/bin/sh" in kernel_args(spec(), tsc_khz=1, accel="tcg", init="/bin/sh")
