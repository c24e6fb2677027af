# SPDX-License-Identifier: Apache-2.0
"""bugbox kernel: the kernels in the store."""

from __future__ import annotations

from typing import Any

from bugbox.cli.out import complain, document, say, table
from bugbox.errors import NotFound
from bugbox.image import store
from bugbox.image.store import BuiltKernel
from bugbox.paths import Home

__all__ = ["list_", "show"]


def list_(*, json: bool = False) -> int:
    """Show the kernels in the store.

    Args:
        json: Print one JSON document.
    """
    found = store.kernels(Home())
    if json:
        document([_facts(kernel) for kernel in found])
    elif found:
        table(["RELEASE", "DIGEST"], [[k.release, k.digest[:12]] for k in found])
    else:
        complain("no kernel is there yet: bugbox image build")
    return 0


def show(release: str | None = None, /, *, json: bool = False) -> int:
    """Show where a kernel and its parts lie.

    Args:
        release: Its release, or the start of its digest. Without it, the newest.
        json: Print one JSON document.
    """
    found = store.kernels(Home())
    meant = [
        k for k in found if not release or k.release == release or k.digest.startswith(release)
    ]
    if not meant:
        names = ", ".join(kernel.release for kernel in found)
        raise NotFound(
            f"no kernel {release or ''} in the store".replace("  ", " "),
            hint=f"there is {names}" if names else "bugbox image build",
        )
    facts = _facts(meant[-1])
    if json:
        document(facts)
        return 0
    for key, value in facts.items():
        say(f"{key}: {value}")
    return 0


def _facts(kernel: BuiltKernel) -> dict[str, Any]:
    return {
        "release": kernel.release,
        "digest": kernel.digest,
        "folder": str(kernel.folder),
        "vmlinux": str(kernel.vmlinux),
        "modules": str(kernel.modules),
    }
