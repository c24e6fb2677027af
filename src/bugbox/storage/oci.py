# SPDX-License-Identifier: Apache-2.0
"""A layer as an OCI image layout, and back: what skopeo, umoci, podman and Docker read and write.

The layout is a folder: `oci-layout`, `index.json`, and blobs named by their SHA-256. An exported
one holds an image of this single layer, to be put on a base. Deletions look the same in a layer of
ours and in OCI's; access control lists and holes do not (see `to_oci` and `from_oci`).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from bugbox.errors import CommandFailed
from bugbox.host import proc
from bugbox.storage.acl import ATTRIBUTES, from_attribute, to_attribute
from bugbox.storage.archive import USUAL, ArchiveError, Entry, Limits, members
from bugbox.storage.tar_writer import TarWriter

__all__ = ["HEAD", "Found", "from_oci", "opened", "read_layout", "to_oci", "write_layout"]

#: Where an exported image says what a layer's head says.
HEAD = "io.bugbox.layer"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_REF = "org.opencontainers.image.ref.name"
_JSON_BYTES = 4 << 20
_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The topmost layer of an image in a layout."""

    blob: Path
    media_type: str
    #: The image's annotations.
    annotations: dict[str, str]
    #: How many layers lie under it.
    below: int


def to_oci(source: BinaryIO, out: BinaryIO, limits: Limits = USUAL) -> TarWriter:
    """Write a layer's tar as OCI tools know it: lists as attributes, holes as zeros."""
    tar = TarWriter(out)
    for entry, contents in members(source, limits):
        lists = {ATTRIBUTES[kind]: to_attribute(text) for kind, text in entry.acls.items()}
        plain = replace(entry, acls={}, xattrs={**entry.xattrs, **lists}, data=None)
        tar.add(plain, contents)
    tar.close()
    return tar


def from_oci(source: BinaryIO, out: BinaryIO, limits: Limits = USUAL) -> TarWriter:
    """Write an OCI layer's tar as one of ours; ArchiveError when it breaks a rule of a layer."""
    tar = TarWriter(out)
    for entry, contents in members(source, limits):
        tar.add(_own(entry), contents)
    tar.close()
    return tar


def _own(entry: Entry) -> Entry:
    lists = {
        kind: from_attribute(entry.xattrs[name])
        for kind, name in ATTRIBUTES.items()
        if name in entry.xattrs
    }
    own = {key: value for key, value in entry.xattrs.items() if key not in ATTRIBUTES.values()}
    return replace(entry, xattrs=own, acls={**lists, **entry.acls}, data=None)


def write_layout(tar: BinaryIO, folder: Path, *, name: str, annotations: dict[str, str]) -> str:
    """Make a layout in the new `folder` with one image, `name`; return its manifest's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    plain = folder / "layer.tar"
    with plain.open("w+b") as out:
        diff_id = to_oci(tar, out).sha256.hexdigest()
    packed = folder / "layer.tar.gz"
    with plain.open("rb") as source, packed.open("wb") as target:
        # No name and no time in it: the same layer gives the same blob.
        with gzip.GzipFile("", "wb", 6, target, mtime=0) as zipped:
            shutil.copyfileobj(source, zipped, 1 << 20)
    plain.unlink()
    layer = _adopt(packed, blobs, f"{_LAYER}+gzip")
    config = _blob(
        blobs,
        _CONFIG,
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]},
            "history": [{"created_by": "bugbox"}],
        },
    )
    manifest = _blob(
        blobs,
        _MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": annotations,
        },
    )
    index = {"schemaVersion": 2, "manifests": [{**manifest, "annotations": {_REF: name}}]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(manifest["digest"])


def _adopt(path: Path, blobs: Path, media_type: str) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size
    path.rename(blobs / digest)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _blob(blobs: Path, media_type: str, value: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(value, sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def read_layout(folder: Path, name: str = "") -> Found:
    """Find the topmost layer of the image `name`, or of the only one; ArchiveError."""
    index = _json(folder / "index.json")
    images = [
        each
        for each in _list(index, "manifests")
        if not name or _dict(each, "annotations").get(_REF) == name
    ]
    if len(images) != 1:
        names = [str(_dict(each, "annotations").get(_REF)) for each in _list(index, "manifests")]
        raise ArchiveError(
            f"{folder}: {len(images)} images fit, expected one",
            hint=f"FOLDER:NAME picks one of {', '.join(names[:20])}" if names else None,
        )
    if images[0].get("mediaType") == _INDEX:
        raise ArchiveError(f"{folder}: an image for several architectures; copy one of them out")
    manifest = _json(_path(folder, images[0]), str(images[0].get("digest")))
    layers = _list(manifest, "layers")
    if not layers:
        raise ArchiveError(f"{folder}: an image without a layer")
    annotations = {str(k): str(v) for k, v in _dict(manifest, "annotations").items()}
    return Found(
        blob=_path(folder, layers[-1]),
        media_type=str(layers[-1].get("mediaType")),
        annotations=annotations,
        below=len(layers) - 1,
    )


@contextmanager
def opened(found: Found) -> Iterator[BinaryIO]:
    """Unpack a layer's blob as a stream, after its digest was looked at; to be read to its end."""
    if _sha256(found.blob) != found.blob.name:
        raise ArchiveError(f"{found.blob}: not what its name says: damaged")
    unpack = {
        _LAYER: ["cat"],
        f"{_LAYER}+gzip": ["gzip", "-dc"],
        _DOCKER_LAYER: ["gzip", "-dc"],
        f"{_LAYER}+zstd": ["zstd", "-q", "-dc", "--memory=128MB"],
    }.get(found.media_type)
    if unpack is None:
        raise ArchiveError(f"{found.blob}: layers of type {found.media_type} are not supported")
    with found.blob.open("rb") as source:
        try:
            with proc.reading(unpack, source=source, timeout=_TIMEOUT) as tar:
                yield cast(BinaryIO, tar)
        except CommandFailed as error:
            raise ArchiveError(f"{found.blob}: damaged", detail=error.stderr) from error


def _path(folder: Path, descriptor: Any) -> Path:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    match = re.fullmatch("sha256:([0-9a-f]{64})", digest if isinstance(digest, str) else "")
    if not match:
        raise ArchiveError(f"{folder}: names a blob by something else than a SHA-256")
    path = folder / "blobs" / "sha256" / match[1]
    if path.is_symlink() or not path.is_file():
        raise ArchiveError(f"{path}: no such blob")
    return path


def _json(path: Path, digest: str = "") -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_JSON_BYTES)
        value = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{path}: not an OCI image layout: {error}") from error
    if digest and hashlib.sha256(data).hexdigest() != digest.removeprefix("sha256:"):
        raise ArchiveError(f"{path}: not what its name says: damaged")
    if not isinstance(value, dict):
        raise ArchiveError(f"{path}: not an OCI image layout")
    return value


def _list(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = value.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _dict(value: dict[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
