# SPDX-License-Identifier: Apache-2.0
"""bugbox build: make puzzles' layers, so that a start has nothing to wait for."""

from __future__ import annotations

from typing import Any

from bugbox.cli import prepare
from bugbox.cli.ask import puzzle_ref
from bugbox.cli.out import document, say

__all__ = ["build"]


def build(*names: str, json: bool = False) -> int:
    """Build puzzles, with the kernel and the base image where they are missing.

    Args:
        names: Names of the catalogue or folders. Without one, the folder you stand in.
        json: Print one JSON document.
    """
    told: list[dict[str, Any]] = []
    for name in names or (None,):
        parts = prepare.ensure(puzzle_ref(name))
        layer = parts.layer
        assert layer is not None
        told.append(
            {
                "puzzle": name or ".",
                "layer": layer.key,
                "folder": str(layer.folder),
                "size_bytes": layer.size_bytes,
            }
        )
        if not json:
            say(
                f"{name or 'puzzle'} is built: layer {layer.key[:12]}, {layer.size_bytes >> 10} KiB"
            )
    if json:
        document(told)
    return 0
