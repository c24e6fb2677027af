# SPDX-License-Identifier: Apache-2.0
"""Layers in the store: one folder each, with the portable file, the disk, and what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import BuildFailed
from bugbox.paths import Home
from bugbox.storage import disk, file
from bugbox.storage.archive import ArchiveError, Limits, scan
from bugbox.storage.layer_file import Head

__all__ = ["BuiltLayer", "Made", "finish", "head_of", "load", "load_all"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer in the store."""

    key: str
    folder: Path
    #: Size of the disk the guest sees.
    size_bytes: int
    #: SHA-256 of the uncompressed tar: the same for the same puzzle on the same base.
    tar_sha256: str
    base_digest: str
    #: What build.sh did and no layer can carry, a sentence each.
    warnings: tuple[str, ...] = ()

    @property
    def tar(self) -> Path:
        """The portable form, zstd."""
        return self.folder / "puzzle.tar.zst"

    @property
    def disk(self) -> Path:
        """The same as a qcow2 over the base image."""
        return self.folder / "puzzle.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A layer's file that another builder has made, not yet in the store."""

    file: Path
    #: What the layer could not take along, a sentence each.
    warnings: tuple[str, ...] = ()


def load(home: Home, key: str) -> BuiltLayer | None:
    """Return the layer of that key, when the store has it."""
    folder = home.layers / key
    try:
        values = json.loads((folder / "manifest.json").read_bytes())
        layer = BuiltLayer(
            key=key,
            folder=folder,
            size_bytes=values["disk"]["size_bytes"],
            tar_sha256=values["tar"]["sha256"],
            base_digest=values["base"]["digest"],
            warnings=tuple(map(str, values.get("warnings", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return layer if values.get("format") == _FORMAT else None


def load_all(home: Home) -> list[BuiltLayer]:
    """Return every layer in the store, by key."""
    try:
        keys = sorted(entry.name for entry in home.layers.iterdir())
    except FileNotFoundError:
        return []
    return [layer for key in keys if (layer := load(home, key)) is not None]


def head_of(
    tar: Path, *, name: str, version: str, inputs: str, base: str, base_digest: str, disk_bytes: int
) -> Head:
    """Look through a layer's tar and describe it; BuildFailed when it breaks a rule."""
    size = tar.stat().st_size
    try:
        with tar.open("rb") as source:
            members = sum(1 for _ in scan(source, Limits(bytes=size)))
    except ArchiveError as error:
        raise BuildFailed(f"{name}: the layer is refused: {error.message}") from error
    return Head(
        puzzle=name,
        version=version,
        inputs=inputs,
        base=base,
        base_digest=base_digest,
        disk_bytes=disk_bytes,
        tar_sha256=file.digest(tar),
        tar_bytes=size,
        members=members,
    )


def finish(made: Path, key: str, head: Head, warnings: list[str]) -> None:
    """Write down what the layer in `made` is, when its file and its disk are there."""
    packed, qcow2 = made / "puzzle.tar.zst", made / "puzzle.qcow2"
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "key": key,
        "puzzle": {"name": head.puzzle, "version": head.version},
        "base": {"name": head.base, "digest": head.base_digest},
        "tar": {
            "sha256": head.tar_sha256,
            "size_bytes": head.tar_bytes,
            "members": head.members,
        },
        "archive": {"sha256": file.digest(packed), "size_bytes": packed.stat().st_size},
        "disk": {"sha256": file.digest(qcow2), "size_bytes": disk.virtual_size(qcow2)},
        "warnings": warnings,
    }
    text = json.dumps(manifest, indent=2) + "\n"
    (made / "manifest.json").write_text(text)
