# SPDX-License-Identifier: Apache-2.0
"""Sentences for events, and what lines on the console mean."""

import pytest

from bugbox.machine.qemu.verdict import block_error, shutdown_reason
from bugbox.machine.verdict import boot_trouble, has_halted


@pytest.mark.parametrize(
    ("line", "ours", "want"),
    [
        (
            "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
            True,
            "the kernel panicked: VFS: Unable to mount root fs",
        ),
        (
            "[    9.1] Kernel panic - not syncing: sysrq triggered crash",
            False,
            "the kernel panicked: sysrq triggered crash",
        ),
        (
            "bugbox: boot failed: mount /dev/vda: No such device",
            True,
            "the boot failed: mount /dev/vda: No such device",
        ),
        ("bugbox: boot failed: the learner wrote this", False, None),
        ("[    1.2] Kernel panicked nowhere", True, None),
        ("", True, None),
    ],
)
def test_boot_trouble(line: str, ours: bool, want: str | None) -> None:
    assert boot_trouble(line, ours=ours) == want


def test_what_a_guest_says_is_kept_short() -> None:
    said = boot_trouble("Kernel panic - not syncing: " + "x" * 10000, ours=True)
    assert said is not None and len(said) < 300


def test_shutdown() -> None:
    assert shutdown_reason({"guest": True, "reason": "guest-shutdown"}) == (
        "the guest powered itself off"
    )
    assert "host-signal" in shutdown_reason({"guest": False, "reason": "host-signal"})


def test_block_error() -> None:
    assert block_error({"nospace": True, "operation": "write"}) == "the host's disk is full"
    assert block_error(
        {"nospace": False, "operation": "write", "reason": "Input/output error"}
    ) == ("the host could not write its disk: Input/output error")


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("[   12.345678] reboot: System halted", True),
        ("[12345.000001] reboot: Power down", True),
        ("[   12.345678] reboot: Restarting system", False),
        ("reboot: System halted", False),
        ("learner@host:~$ echo '[   12.345678] reboot: System halted'", False),
        ("", False),
    ],
)
def test_the_kernels_last_words(line: str, want: bool) -> None:
    assert has_halted(line) is want
