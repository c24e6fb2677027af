# SPDX-License-Identifier: Apache-2.0
"""What goes into a layer: all that reaches the build machine, as one tar, and the key made of it.

The key is right by construction: what is not in the tar cannot reach build.sh, and whatever is in
the tar is in the key.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bugbox.errors import DefinitionError
from bugbox.paths import DATA
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.setup import OWN, asks, wrapper
from bugbox.storage.known import Known

__all__ = ["EPOCH", "NEVER", "SCRIPTS", "layer_key", "never", "pack", "script"]

#: Raise it when equal inputs are to make another layer for a reason outside of `guest/`.
_BUILDER = 1
#: 2024-01-01, UTC: the time of everything that the build wrote.
EPOCH = 1_704_067_200
#: Never in a layer, as patterns from the root: what is not on the disk, what names one machine
#: only, and what can be had again.
NEVER = (
    "puzzle",
    "run",
    "tmp",
    "proc",
    "sys",
    "dev",
    "etc/machine-id",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "etc/ssh/ssh_host_*",
    "var/lib/apt/lists/*",
    "var/log/journal/*",
)

#: What runs in the build machine, beside the puzzle's own.
SCRIPTS = ("prepare.sh", "run.sh", "collect.sh", "archive.sh", "apply.sh")

_MAX_INPUTS = 1 << 30
_known = Known()


def never(puzzle: Puzzle) -> tuple[str, ...]:
    """Return what is never in this puzzle's layer: NEVER without what it asks to keep."""
    kept = [path.removeprefix("/") for path in puzzle.manifest.build.keep]
    return tuple(name for name in NEVER if name not in kept and name.removesuffix("/*") not in kept)


def layer_key(puzzle: Puzzle, base_digest: str) -> str:
    """Return the name of the layer that this puzzle makes on that base."""
    made_of = {
        "builder": _BUILDER,
        "scripts": [hashlib.sha256(script(name)).hexdigest() for name in SCRIPTS],
        "epoch": EPOCH,
        "never": never(puzzle),
        "base": base_digest,
        "disk": puzzle.manifest.machine.disk,
        "inputs": _inputs(puzzle) if puzzle.builds else None,
    }
    if puzzle.manifest.build.network:
        made_of["network"] = script("network.sh").decode()
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _inputs(puzzle: Puzzle) -> str:
    """Hash what reaches the build machine, once for as long as nothing of it changes."""
    paths = [path for top in puzzle.inputs for path in (top, *sorted(top.rglob("*")))]
    own = puzzle.build.text if puzzle.build else b""
    made = wrapper(puzzle.manifest, own=True) if asks(puzzle.manifest) else b""
    build = hashlib.sha256(made + own).hexdigest()
    return _known.of(paths, lambda: pack(puzzle, None), build)


def pack(puzzle: Puzzle, to: BinaryIO | None) -> str:
    """Write a tar of all that reaches the build machine; return its SHA-256, `to` or no `to`.

    That is build.sh, files/ and other folders that are asked for, with owners, times and modes
    that do not depend on this host: of a mode only the run bit counts, as in git.
    """
    if not puzzle.builds:
        raise ValueError(f"{puzzle.name} has nothing to build")
    sink = _Sink(to)
    # tarfile only ever writes to it.
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, text in _scripts(puzzle):
            _add(tar, name, text, run=True)
        for top in puzzle.inputs:
            _add_folder(tar, top.name)
            for path in sorted(top.rglob("*")):
                _add_path(tar, f"{top.name}/{path.relative_to(top).as_posix()}", path)
    return sink.sha256.hexdigest()


def _scripts(puzzle: Puzzle) -> Iterator[tuple[str, bytes]]:
    """Yield what is run, by name: `build.sh` is, and runs the puzzle's own if that is another."""
    own = puzzle.build.text if puzzle.build else None
    if asks(puzzle.manifest):
        yield "build.sh", wrapper(puzzle.manifest, own=own is not None)
        if own is not None:
            yield OWN, own
    elif own is not None:
        yield "build.sh", own


class _Sink:
    """Hashes what is written, and passes it on."""

    def __init__(self, to: BinaryIO | None) -> None:
        self.to = to
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.size > _MAX_INPUTS:
            raise DefinitionError(f"what build.sh gets is larger than {_MAX_INPUTS >> 20} MiB")
        self.sha256.update(data)
        if self.to is not None:
            self.to.write(data)
        return len(data)


def _add_path(tar: tarfile.TarFile, name: str, path: Path) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        info = _info(name, tarfile.SYMTYPE, 0o777)
        info.linkname = os.readlink(path)  # noqa: PTH115
        tar.addfile(info)
    elif stat.S_ISDIR(mode):
        _add_folder(tar, name)
    else:
        # Not followed, not waited for: the definition has looked at it, but some time ago.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise DefinitionError(f"{path}: neither a file nor a folder")
            try:
                _add_stream(tar, name, file, found.st_size, run=bool(mode & 0o111))
            except OSError as error:
                raise DefinitionError(f"{path}: {error}") from error


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, run: bool) -> None:
    _add_stream(tar, name, io.BytesIO(data), len(data), run=run)


def _add_stream(tar: tarfile.TarFile, name: str, data: BinaryIO, size: int, *, run: bool) -> None:
    info = _info(name, tarfile.REGTYPE, 0o755 if run else 0o644)
    info.size = size
    tar.addfile(info, data)


def _add_folder(tar: tarfile.TarFile, name: str) -> None:
    tar.addfile(_info(name, tarfile.DIRTYPE, 0o755))


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, EPOCH
    return info


def script(name: str) -> bytes:
    """Return one of the scripts of `guest/`."""
    return (DATA / "puzzle" / "guest" / name).read_bytes()
