# SPDX-License-Identifier: Apache-2.0
"""Sizes and durations as people write them: `256MiB`, `10m`, `1m30s`.

A number without a unit is refused: a reader must not have to guess.
"""

from __future__ import annotations

import re

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size"]

_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,9})(KiB|MiB|GiB|TiB)")
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h|d))+")
_PART = re.compile(r"([0-9.]+)(ms|s|m|h|d)")


def parse_size(text: str) -> int:
    """Return the bytes that `256MiB` means; ValueError when it is not a size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _SIZES[match[2]]


def parse_duration(text: str) -> float:
    """Return the seconds that `1m30s` means; ValueError when it is not a duration."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def format_size(size: int) -> str:
    """Write bytes with the largest unit that divides them."""
    for unit, factor in reversed(_SIZES.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size} bytes"


def format_duration(seconds: float) -> str:
    """Write seconds as a person would: 45s, 10m, 1m30s, 1h5m."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    left = round(seconds)
    parts = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)
