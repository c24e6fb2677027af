# SPDX-License-Identifier: Apache-2.0
"""What the lines on a machine's console mean. Pure, and quick to load: a warden reads them, too."""

from __future__ import annotations

import re

__all__ = ["boot_trouble", "has_halted"]

_PANIC = re.compile(r"Kernel panic - not syncing: (.{1,200})")
_LIFELINE = re.compile(r"bugbox: boot failed: (.{1,400})")
#: The kernel's last words, with its time in front: neither a panic nor a reboot prints them.
_HALTED = re.compile(r"\[ *\d+\.\d{6}\] reboot: (System halted|Power down)\s*")


def boot_trouble(line: str, *, ours: bool) -> str | None:
    """Say why a boot fails, when `line` of the console tells.

    `ours`: nothing but the kernel and the lifeline has run yet, so the lifeline's words are its
    own.
    """
    if found := _PANIC.search(line):
        return f"the kernel panicked: {found[1].strip()}"
    if ours and (found := _LIFELINE.search(line)):
        return f"the boot failed: {found[1].strip()}"
    return None


def has_halted(line: str) -> bool:
    """Whether the kernel says that it has stopped for good, after a poweroff or a halt."""
    return _HALTED.fullmatch(line) is not None
