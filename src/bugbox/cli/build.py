# SPDX-License-Identifier: Apache-2.0
"""bugbox build: make puzzles' layers, so that a start has nothing to wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from bugbox.cli import prepare
from bugbox.cli.ask import puzzle_ref
from bugbox.cli.out import complain, document, printable, say
from bugbox.errors import UserError
from bugbox.paths import Home
from bugbox.session import artefact

__all__ = ["build"]


def build(
    *names: str,
    builder: Literal["vm", "docker"] = "vm",
    output: Path | None = None,
    warm: bool = False,
    json: bool = False,
) -> int:
    """Build puzzles, with the kernel and the base image where they are missing.

    Args:
        names: Names of the catalogue or folders. Without one, the folder you stand in.
        builder: Where build.sh runs: a machine, safe for any puzzle, or a container on this host.
        output: Write the layer to this file as well; for one puzzle. Also -o.
        warm: Make each puzzle's template too, so that its first start is a clone.
        json: Print one JSON document.
    """
    if output is not None and len(names) > 1:
        raise UserError("-o takes one puzzle at a time")
    told: list[dict[str, Any]] = []
    for name in names or (None,):
        ref = puzzle_ref(name)
        parts = prepare.ensure(ref, builder=builder)
        layer = parts.layer
        assert layer is not None
        warmed = warm and prepare.warm(ref, parts)
        if output is not None:
            artefact.export(Home(), layer.tar, output, "file")
        puzzle, size = Path(ref).name, layer.tar.stat().st_size
        told.append(
            {
                "puzzle": puzzle,
                "layer": layer.key,
                "folder": str(layer.folder),
                "tar_bytes": size,
                "disk_bytes": layer.disk.stat().st_blocks * 512,
                "warnings": [*layer.warnings],
                "template": warmed,
            }
        )
        for warning in layer.warnings:
            complain(f"warning: {printable(warning)}")
        if warm and not warmed:
            complain("machines cannot be cloned by this driver: no template was made")
        if not json:
            say(f"{puzzle} is built: layer {layer.key[:12]}, {max(1, size >> 10)} KiB packed")
    if json:
        document(told)
    return 0
