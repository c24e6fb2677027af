# SPDX-License-Identifier: Apache-2.0
"""Firecracker's versions: what we need, and what each one knows. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bugbox.errors import GuestError, HostError

__all__ = ["OLDEST", "PAUSE_BREAKS_VSOCK", "RELEASES", "Version", "accept", "parse"]

#: Where its authors publish it; it is in no distribution.
RELEASES = "https://github.com/firecracker-microvm/firecracker/releases"
_NUMBERS = re.compile(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,6}))?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Major and minor number; a patch release changes no interface."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


#: The first with PVH boot and with network overrides.
OLDEST = Version(1, 12)
#: After a plain pause its vsock never again brings anything to the guest (mended in 1.17).
PAUSE_BREAKS_VSOCK = Version(1, 16)


def parse(text: str) -> Version:
    """Read a version such as `1.16.1`, `v1.12.0` or `Firecracker v1.17.0-dev`; or GuestError."""
    found = _NUMBERS.search(text[:200])
    if found is None:
        raise GuestError(f"not a version of Firecracker: {text[:60]!r}")
    return Version(int(found[1]), int(found[2]))


def accept(text: str) -> Version:
    """Read a version; HostError when it is too old for us."""
    version = parse(text)
    if version < OLDEST:
        raise HostError(
            f"this Firecracker is {version}, and bugbox needs {OLDEST} or later",
            hint=f"releases are at {RELEASES}",
        )
    return version
