# SPDX-License-Identifier: Apache-2.0
"""Whether this host can run Firecracker: the program, its version, and KVM."""

from __future__ import annotations

import os

from bugbox.errors import HostError, MissingTool
from bugbox.host.proc import find, run
from bugbox.machine.firecracker.version import RELEASES, Version, accept

__all__ = ["check_kvm", "jailer_path", "program_version"]


def program_version(program: str) -> tuple[str, Version]:
    """Return the program's path and version; HostError when it is missing or too old."""
    try:
        path = find(program)
    except MissingTool as error:
        raise MissingTool(
            f"Firecracker: {error.message}",
            hint=f"releases are at {RELEASES}; BUGBOX_FIRECRACKER says where it is",
        ) from None
    return path, accept(run([path, "--version"], timeout=20).stdout.decode(errors="replace"))


def check_kvm() -> None:
    """Raise HostError where there is no KVM that we may use: Firecracker has nothing else."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        there = os.path.exists("/dev/kvm")  # noqa: PTH110 (a device's node, not a path of ours)
        raise HostError(
            "Firecracker needs KVM, and "
            + ("/dev/kvm is not ours to use" if there else "there is no /dev/kvm"),
            hint="--driver qemu works without; `bugbox lab` has one on most hosts",
        )


def jailer_path(wanted: str) -> str:
    """Return the jailer's path; MissingTool when it is not there."""
    try:
        return find(wanted)
    except MissingTool as error:
        raise MissingTool(
            f"Firecracker's jailer: {error.message}",
            hint="BUGBOX_JAILER says where it is; BUGBOX_FIRECRACKER_JAIL=off does without",
        ) from None
