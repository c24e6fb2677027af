# SPDX-License-Identifier: Apache-2.0
"""What no tar can carry, found in a build: said to the author, with what to do instead."""

from __future__ import annotations

import re

from bugbox.puzzle.text import one_line

__all__ = ["MAX_BYTES", "losses"]

#: Of a build machine's answer; what lies behind it is not read.
MAX_BYTES = 64 << 10
_SHOWN = 20
_FLAGS = re.compile(r"flags:([A-Za-z]{1,20})")


def losses(answer: bytes) -> list[str]:
    """Read what collect.sh found, pairs of kind and path; return a sentence for each."""
    words = answer[:MAX_BYTES].decode("utf-8", "backslashreplace").split("\0")
    # The last one may be cut, or is what follows the last NUL: nothing.
    pairs = list(zip(words[:-1:2], words[1:-1:2], strict=False))
    told = [sentence for kind, path in pairs if (sentence := _sentence(kind, path))]
    if len(told) > _SHOWN:
        return [*told[:_SHOWN], f"… and {len(told) - _SHOWN} more that no layer can carry"]
    return told


def _sentence(kind: str, path: str) -> str:
    shown = one_line("/" + path.removeprefix("./"), 200)
    if kind == "socket":
        return (
            f"{shown} is a socket, which no layer can carry: let the program that listens there "
            "make it, from a unit of its own or from boot.sh"
        )
    if flags := _FLAGS.fullmatch(kind):
        return (
            f"{shown} has chattr's +{flags[1]}, which no layer can carry: "
            f"set it in break.sh (chattr +{flags[1]} {shown})"
        )
    return ""
