# SPDX-License-Identifier: Apache-2.0
"""What QEMU's events and the console's lines mean, in a sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["block_error", "boot_trouble", "shutdown_reason"]

_PANIC = re.compile(r"Kernel panic - not syncing: (.{1,200})")
_LIFELINE = re.compile(r"bugbox: boot failed: (.{1,400})")


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


def shutdown_reason(data: Mapping[str, object]) -> str:
    """Say who powered the machine off."""
    if data.get("guest"):
        return "the guest powered itself off"
    return f"it was powered off ({data.get('reason')})"


def block_error(data: Mapping[str, object]) -> str:
    """Say why QEMU stopped the machine rather than lose a write."""
    if data.get("nospace"):
        return "the host's disk is full"
    return f"the host could not {data.get('operation')} its disk: {data.get('reason')}"
