# SPDX-License-Identifier: Apache-2.0
"""A layer's file on its way out of the store and in again: copies, OCI images, disks."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from bugbox.errors import NotBuilt, StateError, UserError
from bugbox.host.bridge import held, in_thread
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.unpack import lists
from bugbox.session.builder import Parts, apply_layer, find_layer
from bugbox.session.layer import BuiltLayer, finish, head_of, load
from bugbox.storage import file, layer_file, oci, onhost
from bugbox.storage.archive import ArchiveError
from bugbox.storage.layer_file import Head

__all__ = ["export", "file_of", "from_image", "require_base", "stored", "to_disk", "to_raw"]

Form = Literal["file", "tar", "oci"]


def file_of(home: Home, puzzle: Puzzle, image: BuiltImage | None) -> Path:
    """Return the file of a puzzle's layer; NotBuilt when there is none yet."""
    layer = find_layer(home, puzzle, image) if image is not None else None
    if layer is None:
        raise NotBuilt(f"{puzzle.name} has no layer yet", hint=f"bugbox build {puzzle.name}")
    return layer.tar


def require_base(head: Head, image: BuiltImage) -> None:
    """Refuse a layer that was made on another base image: StateError."""
    if head.base_digest == image.digest:
        return
    made_on = (
        f"{head.base} {head.base_digest[:12]}" if head.base else "a base that it does not name"
    )
    raise StateError(
        f"this layer was made on {made_on}, and the base image here is "
        f"{image.name} {image.digest[:12]}",
        hint=f"build it again from the puzzle: bugbox build {head.puzzle or 'NAME'}",
    )


def export(home: Home, source: Path, to: Path, form: Form) -> str:
    """Write a layer, looked through before, in one of three forms; return its digest there.

    `file` is the same file again, `tar` the tar of an OCI layer, `oci` a new folder with an image.
    """
    head, _ = layer_file.verify(source)
    with _new(home, to) as made:
        if form == "file":
            shutil.copyfile(source, made)
            digest = file.digest(made)
        elif form == "tar":
            with layer_file.opened(source) as tar, made.open("wb") as out:
                digest = oci.to_oci(tar, out).sha256.hexdigest()
        else:
            annotations = {oci.HEAD: json.dumps(asdict(head), sort_keys=True)}
            with layer_file.opened(source) as tar:
                name = head.puzzle or "layer"
                digest = oci.write_layout(tar, made, name=name, annotations=annotations)
    return digest.removeprefix("sha256:")


@contextmanager
def _new(home: Home, to: Path) -> Iterator[Path]:
    """Yield where to make what is moved to `to` when the block ends well."""
    if to.exists() or to.is_symlink():
        raise UserError(f"{to} is there already")
    if not to.absolute().parent.is_dir():
        raise UserError(f"{to}: no such folder")
    home.prepare()
    with file.workspace(home.tmp, "export") as work:
        yield work / "made"
        shutil.move(work / "made", to)


@contextmanager
def from_image(home: Home, layout: str, image: BuiltImage, disk_bytes: int) -> Iterator[Path]:
    """Turn the topmost layer of an OCI image into a layer's file, there for the time of the block.

    `layout` is a folder, or FOLDER:NAME. Whether the image's lower layers are our base cannot be
    known, unless the image is one of ours: then it says on which base its layer was made.
    """
    folder, _, name = (layout, "", "") if Path(layout).is_dir() else layout.rpartition(":")
    found = oci.read_layout(Path(folder or name), name if folder else "")
    home.prepare()
    with file.workspace(home.tmp, "import") as work:
        tar, path = work / "layer.tar", work / "puzzle.tar.zst"
        with oci.opened(found) as blob, tar.open("wb") as out:
            oci.from_oci(blob, out)
        head = head_of(
            tar,
            name="",
            version="",
            inputs="",
            base=image.name,
            base_digest=image.digest,
            disk_bytes=disk_bytes,
        )
        layer_file.write(tar, path, _with_origin(head, found.annotations.get(oci.HEAD)))
        yield path


def _with_origin(head: Head, said: str | None) -> Head:
    """Take over what an exported image says of where its layer is from."""
    if said is None:
        return head
    try:
        values = json.loads(said)
        kept = {key: values[key] for key in ("puzzle", "version", "base", "base_digest")}
        disk_bytes = values["disk_bytes"]
    except (ValueError, TypeError, KeyError) as error:
        raise ArchiveError(f"the image's {oci.HEAD} cannot be read: {error}") from error
    if not all(isinstance(value, str) and len(value) <= 200 for value in kept.values()):
        raise ArchiveError(f"the image's {oci.HEAD} makes no sense")
    if not isinstance(disk_bytes, int) or not 0 < disk_bytes <= 1 << 40:
        raise ArchiveError(f"the image's {oci.HEAD} names no size of a disk")
    # Not the inputs: somebody may have changed the layer on its way.
    return replace(head, disk_bytes=disk_bytes, **kept)


def to_raw(parts: Parts, source: Path, to: Path) -> Head:
    """Unpack a layer onto a new raw image, by mount and tar on this host; for root."""
    head = layer_file.read_head(source)
    require_base(head, parts.image)
    base = parts.image.rootfs
    with _new(parts.home, to) as made:
        onhost.to_raw(source, base, made, size_bytes=head.disk_bytes, lists=lists)
    return head


async def stored(parts: Parts, source: Path) -> BuiltLayer:
    """Put a layer's file into the store, so that machines can start with it."""
    home = parts.home
    head = await in_thread(layer_file.read_head, source)
    require_base(head, parts.image)
    facts = f"file {head.tar_sha256} {head.disk_bytes} {parts.image.digest}"
    # Never the name that building a puzzle gives: nobody here has seen it being built.
    key = hashlib.sha256(facts.encode()).hexdigest()
    found = load(home, key)
    if found is not None:
        return found
    async with held(file.workspace(home.tmp, "layer")) as work:
        made = work / "layer"
        made.mkdir()
        head = await apply_layer(parts, source, made / "puzzle.qcow2", head.disk_bytes)
        await in_thread(shutil.copyfile, source, made / "puzzle.tar.zst")
        await in_thread(finish, made, key, head, [])
        await in_thread(file.publish, made, home.layers / key)
    built = load(home, key)
    assert built is not None
    return built


async def to_disk(parts: Parts, source: Path, to: Path) -> Head:
    """Unpack a layer onto a new qcow2 over its base image, in a machine: no root is needed."""
    head = layer_file.read_head(source)
    require_base(head, parts.image)
    async with held(_new(parts.home, to)) as made:
        await apply_layer(parts, source, made, head.disk_bytes)
    return head
