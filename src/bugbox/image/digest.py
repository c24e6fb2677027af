# SPDX-License-Identifier: Apache-2.0
"""Name a thing by what it was made from: a digest over labelled parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

__all__ = ["SHORT", "of"]

#: How much of a digest goes into a folder's name: 64 bits, enough for a store of hundreds.
SHORT = 16


def of(parts: Mapping[str, bytes | str]) -> str:
    """Return a SHA-256 over `parts`, whatever their order.

    Labels and values go in with their lengths: two different sets never read the same.
    """
    total = hashlib.sha256()
    for label in sorted(parts):
        value = parts[label]
        data = value.encode() if isinstance(value, str) else value
        total.update(f"{len(label.encode())}:{label}={len(data)}:".encode())
        total.update(data)
    return total.hexdigest()
