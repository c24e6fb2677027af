# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of a session on the disk: what is kept, and what it keeps from being removed.

    checkpoints/LABEL/state        memory and devices' state of the machine, mode 0600
    checkpoints/LABEL/about.json   its drives as they were, its clock, when it was made, digests

One is there whole or not at all; a folder that begins with a dot is on its way, or going. One that
replaces another first lies beside it as `LABEL~N`, and of a label that with the highest number
counts: so there is a whole one at each moment, on any filesystem, whoever dies when.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import NotFound, StateError, UserError
from bugbox.machine.spec import MachineSpec
from bugbox.paths import SessionPaths
from bugbox.session import chain
from bugbox.session.description import from_json, to_json
from bugbox.session.intact import Digest, digests, opened
from bugbox.storage.file import publish as move_into_place

__all__ = [
    "Kept",
    "begin",
    "chosen",
    "damaged",
    "discard",
    "kept",
    "looked_at",
    "new_label",
    "opened_state",
    "pinned",
    "publish",
    "remove",
]

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_FOLDER = re.compile(rf"({_LABEL.pattern})(?:~([0-9]{{1,9}}))?")
_COMING, _GOING = ".coming", ".going"


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
    #: Of its state, and of each image of the session's own.
    files: Mapping[str, Digest]

    @property
    def state(self) -> Path:
        """Memory and devices' state."""
        return self.folder / "state"

    def as_json(self) -> dict[str, Any]:
        """Return what `--list` shows."""
        taken = self.state.stat().st_blocks * 512
        return {"label": self.label, "made": self.made, "mib": taken >> 20}


def kept(paths: SessionPaths) -> list[Kept]:
    """Return the checkpoints of a session that can be read, the newest first."""
    found: dict[str, Kept] = {}
    for label, _, folder in _folders(paths.checkpoints):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found[label] = _read(label, folder)
    return sorted(found.values(), key=lambda each: each.made, reverse=True)


def damaged(paths: SessionPaths) -> list[str]:
    """Return the labels of those that cannot be read."""
    readable = {each.label for each in kept(paths)}
    return sorted({label for label, _, _ in _folders(paths.checkpoints)} - readable)


def _folders(checkpoints: Path) -> list[tuple[str, int, Path]]:
    """Return label, number and folder of each; of a label the one that counts is the last."""
    with contextlib.suppress(FileNotFoundError):
        named = [(_FOLDER.fullmatch(path.name), path) for path in checkpoints.iterdir()]
        return sorted((found[1], int(found[2] or 0), path) for found, path in named if found)
    return []


def _read(label: str, folder: Path) -> Kept:
    written = json.loads((folder / "about.json").read_bytes())
    raw = written["about"]
    if _seal(raw) != written["sha256"]:
        raise ValueError(f"{folder}: about.json was changed")
    return Kept(
        label=label,
        made=float(raw["made"]),
        spec=from_json(raw["spec"]),
        clock_offset_ns=int(raw["clock_offset_ns"]),
        folder=folder,
        files={str(name): Digest.from_json(each) for name, each in raw["files"].items()},
    )


def _seal(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def chosen(paths: SessionPaths, label: str | None) -> Kept:
    """Return the one with a label, or the newest; NotFound, or StateError when it is damaged."""
    found, id, spoilt = kept(paths), paths.root.name, damaged(paths)
    if spoilt and label in (None, *spoilt):
        # Without a label too: it may be the newest, and another one is not what was asked for.
        raise _not_usable(id, label or spoilt[0], "what is written of it cannot be read")
    one = next((each for each in found if label in (None, each.label)), None)
    if one is None:
        labels = ", ".join(each.label for each in found)
        hint = f"bugbox checkpoint {id} makes one; bugbox reset {id} begins afresh"
        what = f"no checkpoint {label}" if label else "no checkpoint to go back to"
        raise NotFound(f"{id}: {what}", hint=f"one of {labels}" if labels else hint)
    return one


def _not_usable(id: str, label: str, why: str) -> StateError:
    return StateError(
        f"{id} cannot go back to checkpoint {label}: {why}; the machine is as it was",
        hint=f"bugbox checkpoint {id} --list shows the others; "
        f"bugbox checkpoint {id} --remove {label}",
    )


def looked_at(state: Path, spec: MachineSpec) -> dict[str, Digest]:
    """Return the digests of a machine's state and its own images; reading them takes seconds."""
    return digests(_files(state, spec))


@contextmanager
def opened_state(one: Kept) -> Iterator[int]:
    """Open a state once it and its images are seen to hold what they held; StateError."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(opened(_files(one.state, one.spec), one.files))
        except StateError as error:
            raise _not_usable(one.spec.root.name, one.label, error.message) from error
        yield found["state"]


def _files(state: Path, spec: MachineSpec) -> dict[str, Path]:
    images = (path for drive in spec.drives for path in chain.own_images(spec, drive))
    return {"state": state, **{path.name: path for path in images}}


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
    paths.checkpoints.mkdir(mode=0o700, exist_ok=True)
    counts = {label: folder for label, _, folder in _folders(paths.checkpoints)}
    for _, _, folder in _folders(paths.checkpoints):
        if folder not in counts.values():
            _take_away(folder)
    for name in (_COMING, _GOING):
        shutil.rmtree(paths.checkpoints / name, ignore_errors=True)
    folder = paths.checkpoints / _COMING
    folder.mkdir(mode=0o700)
    return folder


def publish(
    coming: Path,
    label: str,
    made: float,
    spec: MachineSpec,
    clock_offset_ns: int,
    files: Mapping[str, Digest],
) -> None:
    """Put a checkpoint whose state is written in its place; those of that label before it go."""
    about = {
        "made": made,
        "clock_offset_ns": clock_offset_ns,
        "spec": to_json(spec),
        "files": {name: digest.as_json() for name, digest in files.items()},
    }
    sealed = {"about": about, "sha256": _seal(about)}
    (coming / "about.json").write_text(json.dumps(sealed, indent=1))
    before = [each for each in _folders(coming.parent) if each[0] == label]
    number = max((number + 1 for _, number, _ in before), default=0)
    move_into_place(coming, coming.with_name(f"{label}~{number}" if number else label))
    for _, _, folder in before:
        _take_away(folder)


def remove(paths: SessionPaths, label: str) -> None:
    """Remove one, be it damaged; NotFound. Its images are for the next `chain.sweep`."""
    mine = [folder for name, _, folder in _folders(paths.checkpoints) if name == label]
    if not mine:
        chosen(paths, label)  # raises, and says what there is
    for folder in mine:  # the one that counts goes last
        _take_away(folder)


def _take_away(folder: Path) -> None:
    """Remove a folder that is whole as long as it has its name."""
    going = folder.with_name(_GOING)
    shutil.rmtree(going, ignore_errors=True)
    folder.rename(going)
    shutil.rmtree(going, ignore_errors=True)


def discard(paths: SessionPaths) -> None:
    """Remove all of them, and every image but the first: the machine is made afresh."""
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        for path in [*paths.root.iterdir()]:
            if chain.numbered(path):
                path.unlink(missing_ok=True)
