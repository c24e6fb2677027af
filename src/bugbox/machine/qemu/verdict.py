# SPDX-License-Identifier: Apache-2.0
"""What QEMU's events mean, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["block_error", "shutdown_reason"]


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
