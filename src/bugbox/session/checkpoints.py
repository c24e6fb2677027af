# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of a session on the disk: what is kept, and what it keeps from being removed.

    checkpoints/LABEL/state        memory and devices' state of the machine, mode 0600
    checkpoints/LABEL/about.json   its drives as they were, its clock, when it was made

One is there whole or not at all; a folder that begins with a dot is on its way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import NotFound, UserError
from bugbox.machine.spec import MachineSpec
from bugbox.paths import SessionPaths
from bugbox.session import chain
from bugbox.session.description import from_json, to_json

__all__ = ["Kept", "begin", "chosen", "discard", "kept", "new_label", "pinned", "publish"]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_COMING = ".coming"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A checkpoint."""

    label: str
    #: Seconds since 1970.
    made: float
    #: The machine, its drives as they were at that moment.
    spec: MachineSpec
    #: Guest's wall clock minus the host's, ns.
    clock_offset_ns: int
    folder: Path

    @property
    def state(self) -> Path:
        """Memory and devices' state."""
        return self.folder / "state"

    def as_json(self) -> dict[str, Any]:
        """Return what `--list` shows."""
        taken = self.state.stat().st_blocks * 512
        return {"label": self.label, "made": self.made, "mib": taken >> 20}


def kept(paths: SessionPaths) -> list[Kept]:
    """Return the checkpoints of a session, the newest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in paths.checkpoints.iterdir():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                raw = json.loads((folder / "about.json").read_bytes())
                if not folder.name.startswith("."):
                    found.append(_read(folder, raw))
    return sorted(found, key=lambda each: each.made, reverse=True)


def _read(folder: Path, raw: dict[str, Any]) -> Kept:
    return Kept(
        label=folder.name,
        made=float(raw["made"]),
        spec=from_json(raw["spec"]),
        clock_offset_ns=int(raw["clock_offset_ns"]),
        folder=folder,
    )


def chosen(paths: SessionPaths, label: str | None) -> Kept:
    """Return the one with a label, or the newest; NotFound."""
    found = kept(paths)
    one = next((each for each in found if label in (None, each.label)), None)
    if one is None:
        labels = ", ".join(each.label for each in found)
        id = paths.root.name
        hint = f"bugbox checkpoint {id} makes one; bugbox reset {id} begins afresh"
        what = f"no checkpoint {label}" if label else "no checkpoint to go back to"
        raise NotFound(f"{id}: {what}", hint=f"one of {labels}" if labels else hint)
    return one


def new_label(paths: SessionPaths, wanted: str | None) -> str:
    """Return the label of a checkpoint to be: what is wanted, or the next number."""
    if wanted is None:
        numbers = [int(each.label) for each in kept(paths) if each.label.isdecimal()]
        return str(max(numbers, default=0) + 1)
    if not _LABEL.fullmatch(wanted):
        raise UserError(
            f"label: expected up to 32 letters, digits, dots, dashes or underscores, got {wanted!r}"
        )
    return wanted


def pinned(paths: SessionPaths) -> set[Path]:
    """Return the images that checkpoints need."""
    drives = (drive for each in kept(paths) for drive in each.spec.drives)
    return {part.path for drive in drives for part in chain.images(drive)}


def begin(paths: SessionPaths) -> Path:
    """Make the folder of a checkpoint on its way; whatever one before it left is gone."""
    folder = paths.checkpoints / _COMING
    shutil.rmtree(folder, ignore_errors=True)
    paths.checkpoints.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700)
    return folder


def publish(coming: Path, label: str, made: float, spec: MachineSpec, clock_offset_ns: int) -> None:
    """Put a checkpoint whose state is written in its place; one of that label goes."""
    about = {"made": made, "clock_offset_ns": clock_offset_ns, "spec": to_json(spec)}
    with (coming / "about.json").open("w") as file:
        json.dump(about, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    final = coming.with_name(label)
    if final.exists():
        old = coming.with_name(f".{label}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        coming.rename(final)
        shutil.rmtree(old)
    else:
        coming.rename(final)


def discard(paths: SessionPaths) -> None:
    """Remove all of them, and every image but the first: the machine is made afresh."""
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        for path in [*paths.root.iterdir()]:
            if chain.numbered(path):
                path.unlink(missing_ok=True)
