# SPDX-License-Identifier: Apache-2.0
"""A puzzle as one file, and from such a file into the catalogue. Nothing of it runs here."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import UserError
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.definition import MANIFEST, Puzzle, load
from bugbox.puzzle.inputs import pack as inputs
from bugbox.session.layer import BuiltLayer
from bugbox.storage import file, layer_file
from bugbox.storage.archive import ArchiveError, Limits
from bugbox.storage.pack_file import PACK, PackWriter, extract, read_about

__all__ = ["Added", "add", "origin", "pack", "peek"]

#: Of a pack, unpacked; and of one packed layer in it.
_LIMITS = Limits(bytes=6 << 30, members=20_000)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,62}")
_SOLUTIONS = ("solve.sh", "solve.d", "wrong.d", "solution.md")
_WITHHELD = b"The author kept the solution out of this copy.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What came out of a pack."""

    puzzle: Puzzle
    #: SHA-256 of the pack.
    sha256: str
    #: `unpacked` at the first start, `built` from build.sh, or `none` is needed.
    layer: str
    for_learners: bool
    #: False: the very same was there already.
    new: bool


def pack(
    home: Home, puzzle: Puzzle, layer: BuiltLayer | None, to: Path, *, for_learners: bool = False
) -> str:
    """Write a puzzle, with its layer when it has one, to the file `to`; return its SHA-256."""
    if to.exists() or to.is_symlink():
        raise UserError(f"{to} is there already")
    if not to.absolute().parent.is_dir():
        raise UserError(f"{to}: no such folder")
    home.prepare()
    with file.workspace(home.tmp, "pack") as work:
        made = work / "made"
        with made.open("wb") as out:
            writer = PackWriter(out, _about(puzzle, layer, for_learners))
            withheld = _withheld(puzzle) if for_learners else frozenset[str]()
            own = tuple(f"{top.name}/" for top in puzzle.inputs)
            writer.tree("puzzle", puzzle.folder, lambda name: _left_out(name, withheld, own))
            for name in sorted(_named(puzzle) & withheld):
                # The manifest names it: a file must be there.
                writer.data(f"puzzle/{name}", _WITHHELD, run=name.endswith(".sh"))
            if layer is not None:
                writer.file("layer.tar.zst", layer.tar)
            writer.close()
        digest = file.digest(made)
        shutil.move(made, to)
    return digest


def _about(puzzle: Puzzle, layer: BuiltLayer | None, for_learners: bool) -> dict[str, Any]:
    wishes = puzzle.manifest
    return {
        "format": PACK,
        "name": puzzle.name,
        "version": wishes.version or "",
        "title": puzzle.title,
        "authors": [author.name for author in wishes.authors],
        "license": wishes.license or "",
        "base": puzzle.base,
        "for_learners": for_learners,
        "inputs": inputs(puzzle, None) if puzzle.builds else "",
        "layer": layer.tar_sha256 if layer is not None else "",
    }


def _named(puzzle: Puzzle) -> frozenset[str]:
    """Return the files with solutions that the manifest itself names."""
    solution = puzzle.manifest.solution
    return frozenset(name for name in (solution.script, solution.walkthrough) if name)


def _withheld(puzzle: Puzzle) -> frozenset[str]:
    folders = {puzzle.manifest.solution.alternatives, puzzle.manifest.test.wrong}
    return _named(puzzle) | frozenset(_SOLUTIONS) | folders


def _left_out(name: str, withheld: frozenset[str], own: tuple[str, ...]) -> bool:
    """`own` are the folders that reach the build machine whole."""
    last = name.rpartition("/")[2]
    odd = last.startswith(".") or last.endswith("~")
    return name in withheld or (odd and not name.startswith(own))


def add(home: Home, source: Path, *, replace: bool = False) -> Added:
    """Take a packed puzzle into the catalogue of `home`; UserError, DefinitionError, ArchiveError.

    All of it is read before any of it is kept.
    """
    about = read_about(source, PACK)
    name = about.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArchiveError(f"{source}: it does not say which puzzle it holds")
    if (shipped_puzzles() / name / MANIFEST).is_file():
        raise UserError(f"{name} comes with bugbox already", hint=f"bugbox play {name}")
    home.prepare()
    home.puzzles.mkdir(exist_ok=True)
    digest = file.digest(source)
    with (
        file.locked(home.tmp / ".add.lock"),
        file.workspace(home.tmp, "add") as work,
    ):
        final, note = home.puzzles / name, home.puzzles / ".layers" / f"{name}.sha256"
        if final.exists() and note.is_file() and note.read_text() == digest:
            return _added(load(final), digest, home.added_layer(name), about, new=False)
        if final.exists() and not replace:
            raise UserError(
                f"another {name} was added before: {final}", hint="--replace puts this one there"
            )
        puzzle = load(_taken_out(source, work, name))
        layer = work / "pack" / "layer.tar.zst"
        if layer.is_dir():
            raise ArchiveError(f"{source}: its layer is a folder")
        if layer.exists():
            _require_its_own(source, layer, puzzle)
        _keep(home, work, name, layer, digest)
        return _added(load(final), digest, home.added_layer(name), about, new=True)


def peek(home: Home, source: Path) -> Puzzle:
    """Read the puzzle in a packed file and keep nothing; its folder is not there any more."""
    about = read_about(source, PACK)
    name = about.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ArchiveError(f"{source}: it does not say which puzzle it holds")
    home.prepare()
    with file.workspace(home.tmp, "peek") as work:
        return load(_taken_out(source, work, name))


def _taken_out(source: Path, work: Path, name: str) -> Path:
    extract(source, work / "pack", _LIMITS, links_below="puzzle/files")
    if not (work / "pack" / "puzzle").is_dir():
        raise ArchiveError(f"{source}: it holds no puzzle")
    return (work / "pack" / "puzzle").rename(work / name)


def _require_its_own(source: Path, layer: Path, puzzle: Puzzle) -> None:
    head, _ = layer_file.verify(layer)
    if not puzzle.builds or head.inputs != inputs(puzzle, None):
        raise ArchiveError(f"{source}: its layer was not made from its build.sh and files/")


def _keep(home: Home, work: Path, name: str, layer: Path, digest: str) -> None:
    """Put a looked-through puzzle in its place. Its layer and note come first: a puzzle without
    them would be built from build.sh, and one that is replaced has neither for a moment."""
    layers = home.puzzles / ".layers"
    layers.mkdir(exist_ok=True)
    note = layers / f"{name}.sha256"
    note.unlink(missing_ok=True)
    home.added_layer(name).unlink(missing_ok=True)
    if (home.puzzles / name).exists():
        (home.puzzles / name).rename(work / "old")
    if layer.exists():
        shutil.move(layer, home.added_layer(name))
    file.publish(work / name, home.puzzles / name)
    file.write(note, digest.encode())


def _added(puzzle: Puzzle, digest: str, layer: Path, about: dict[str, Any], *, new: bool) -> Added:
    kind = "none" if not puzzle.builds else "unpacked" if layer.exists() else "built"
    return Added(
        puzzle=puzzle,
        sha256=digest,
        layer=kind,
        for_learners=about.get("for_learners") is True,
        new=new,
    )


def origin(home: Home, image: BuiltImage | None, puzzle: Puzzle) -> str:
    """Say why an added puzzle's layer is built rather than unpacked; empty: it is unpacked."""
    path = home.added_layer(puzzle.name)
    if image is None or not path.exists():
        return ""
    head = layer_file.read_head(path)
    if head.base_digest == image.digest:
        return ""
    return (
        f"its layer was made on {head.base} {head.base_digest[:12]}, and the base image here is "
        f"{image.digest[:12]}: it will be built from its build.sh"
    )
