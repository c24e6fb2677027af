# SPDX-License-Identifier: Apache-2.0
"""bugbox layer: what a puzzle changes on its base image, as a file that can go elsewhere."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import anyio

from bugbox.cli.events import shown
from bugbox.cli.out import document, printable, say
from bugbox.config import load
from bugbox.errors import NotBuilt
from bugbox.image import store
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.session import artefact, prepare
from bugbox.storage import layer_file
from bugbox.storage.archive import Entry

__all__ = ["apply", "export", "show", "verify"]

_DISK = 2 << 30


def show(name: str | None = None, /, *, json: bool = False) -> int:
    """Show what a layer is and everything in it.

    Args:
        name: A built puzzle, a layer's file, or an OCI image layout (FOLDER or FOLDER:NAME).
        json: Print one JSON document.
    """
    with _meant(name) as path:
        head, entries = layer_file.verify(path)
    if json:
        document({**asdict(head), "entries": [_facts(entry) for entry in entries]})
        return 0
    _say_head(asdict(head))
    for entry in entries:
        say(_line(entry))
    return 0


def verify(name: str | None = None, /, *, json: bool = False) -> int:
    """Read a layer as a whole; fail when it breaks a rule, is damaged, or fits on no base here.

    Args:
        name: A built puzzle, a layer's file, or an OCI image layout (FOLDER or FOLDER:NAME).
        json: Print one JSON document.
    """
    with _meant(name) as path:
        head, entries = layer_file.verify(path)
    artefact.require_base(head, _base(head.base or "debian-12"))
    if json:
        document(asdict(head))
    else:
        say(f"good: {len(entries)} members, tar sha256:{head.tar_sha256}")
    return 0


def export(
    name: str | None = None,
    /,
    *,
    output: Path,
    form: Literal["file", "tar", "oci"] = "file",
    json: bool = False,
) -> int:
    """Write a layer in a form that other tools can read.

    Args:
        name: A puzzle that is built, or a layer's file.
        output: Where to; also -o.
        form: `file`, the same puzzle.tar.zst; `tar`, an OCI layer; `oci`, a folder with an image.
        json: Print one JSON document.
    """
    with _meant(name) as path:
        digest = artefact.export(Home(), path, output, form)
    if json:
        document({"output": str(output), "form": form, "sha256": digest})
    else:
        say(f"{output}: sha256:{digest}")
    return 0


def apply(name: str, /, *, output: Path, on_host: bool = False, json: bool = False) -> int:
    """Unpack a layer onto a new disk (qcow2) over its base image; needs no root.

    Args:
        name: A layer's file, an OCI image layout (FOLDER or FOLDER:NAME), or a built puzzle.
        output: The new disk; also -o.
        on_host: Write a whole raw image instead, by mount and tar on this host; for root.
        json: Print one JSON document.
    """
    home = Home()
    settings = load(home)
    with shown(), _meant(name) as path:
        head = layer_file.read_head(path)
        parts = prepare.layer_parts(home, settings, head.base or "debian-12")
        if on_host:
            artefact.to_raw(parts, path, output)
        else:
            anyio.run(artefact.to_disk, parts, path, output)
    if json:
        document({"output": str(output), "base": str(parts.image.rootfs)})
    else:
        say(f"{output}: {head.puzzle or 'a layer'} over {parts.image.rootfs}")
    return 0


@contextmanager
def _meant(word: str | None) -> Iterator[Path]:
    """Yield the layer's file that a word means."""
    home = Home()
    if word is not None and Path(word).is_file():
        yield Path(word)
        return
    folder = Path(word.rpartition(":")[0] or word) if word is not None else Path()
    if word is not None and (folder / "oci-layout").is_file():
        with artefact.from_image(home, word, _base("debian-12"), _DISK) as path:
            yield path
        return
    puzzle = find(word, roots(load(home).puzzles), Path.cwd())
    yield artefact.file_of(home, puzzle, store.find_base(home, puzzle.base))


def _base(name: str) -> BuiltImage:
    image = store.find_base(Home(), name)
    if image is None:
        raise NotBuilt(f"there is no base image {name} here", hint=f"bugbox image build {name}")
    return image


def _say_head(facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if value != "":
            say(f"{key.replace('_', ' ')}: {printable(str(value))}")


def _facts(entry: Entry) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": entry.name,
        "mode": stat.filemode(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.hides is not None:
        facts["deletes"] = entry.hides
    for key in ("target", "link_to", "device"):
        if getattr(entry, key):
            facts[key] = getattr(entry, key)
    if entry.xattrs:
        facts["xattrs"] = {key: value.hex() for key, value in sorted(entry.xattrs.items())}
    if entry.acls:
        facts["acls"] = {k: v.decode("ascii", "replace") for k, v in sorted(entry.acls.items())}
    return facts


def _line(entry: Entry) -> str:
    if entry.hides is not None:
        what = "all that was in " if entry.name.endswith(".wh..wh..opq") else ""
        return printable(f"deleted: {what}/{entry.hides}", lines=False)
    owner = f"{entry.uid}:{entry.gid}"
    more = "+" if entry.acls or entry.xattrs else " "
    name = "/" if entry.name == "." else f"/{entry.name}"
    arrow = f" -> {entry.target}" if entry.target else ""
    arrow += f" = /{entry.link_to}" if entry.link_to else ""
    text = f"{stat.filemode(entry.mode)}{more} {owner:>9} {entry.size:>10} {name}{arrow}"
    return printable(text, lines=False)
