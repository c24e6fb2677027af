# SPDX-License-Identifier: Apache-2.0
"""Base, layer and scratch as drives of their own, joined by overlayfs in the guest.

Nothing is put together on the host, and no rights are needed. The price is paid inside: the root is
an overlay, and a learner who looks sees that (docs/explanation/overlays.md).

The layer's drive holds what overlayfs calls an upper directory: deleted names as character devices
0:0, replaced directories marked by an attribute. It is made from the layer's tar without root, by
mke2fs and debugfs, once, beside the layer.
"""

from __future__ import annotations

import uuid
import zlib
from pathlib import Path

from bugbox.errors import HostError
from bugbox.host import proc
from bugbox.storage import file
from bugbox.storage.archive import OPAQUE, WHITEOUT, Entry, Limits, scan
from bugbox.storage.disk import check_free
from bugbox.storage.disks.layout import Layout, Part, Place, Source
from bugbox.storage.filesystem import make_ext4
from bugbox.storage.privilege import as_root

__all__ = ["Overlay", "debugfs_script", "layer_drive"]

_NAME = "scratch.raw"
_TIMEOUT = 1800.0
_DRIVES = ("/dev/vda", "/dev/vdb", "/dev/vdc")
#: Any fixed time: the filesystem's own, not its files'.
_WHEN = 1_700_000_000


class Overlay:
    """An overlay that the guest's own kernel makes."""

    name = "overlay"
    raw = True

    def require(self, folder: Path) -> None:
        """Need mke2fs."""
        proc.find("mke2fs")
        proc.find("debugfs")

    def layout(self, source: Source, place: Place) -> Layout:
        """Two or three drives; the last one is the session's."""
        parts = [Part(id="base", path=source.base, format="raw", read_only=True)]
        if source.tar:
            layer = _drive_path(source.tar)
            parts.append(Part(id="layer", path=layer, format="raw", read_only=True))
        parts.append(Part(id="scratch", path=place.folder / _NAME, format="raw"))
        *lower, upper = _DRIVES[: len(parts)]
        return Layout(
            parts=tuple(parts),
            # The uppermost first, as overlayfs has it.
            kernel_args=(f"bugbox.overlay={upper},{','.join(reversed(lower))}",),
        )

    def make(self, source: Source, place: Place) -> None:
        """Write an empty filesystem, and the layer's drive when it is not there yet."""
        if source.tar:
            layer_drive(source.tar)
        check_free(place.folder)
        path = place.folder / _NAME
        path.unlink(missing_ok=True)
        seed = uuid.uuid4()
        proc.run(
            [
                *("mke2fs", "-q", "-F", "-t", "ext4", "-L", "scratch", "-U", str(seed)),
                # What a sparse file has not written is zero already. It never grows.
                *("-m", "0", "-O", "^resize_inode"),
                *("-E", "root_owner=0:0,assume_storage_prezeroed=1"),
                str(path),
                f"{source.size_bytes >> 10}k",
            ],
            timeout=120,
        )
        path.chmod(0o600)

    def bring_back(self, place: Place) -> None:
        """It is all in the file."""

    def give_back(self, place: Place) -> None:
        """It is all in the folder."""


def layer_drive(tar: Path) -> Path:
    """Return the drive made from a layer's tar; make it when that was not done before."""
    final = _drive_path(tar)
    with file.locked(tar.with_name(".overlay.lock")):
        if not final.exists():
            _make_drive(tar, final)
    return final


def _drive_path(tar: Path) -> Path:
    return tar.with_name("layer.overlay.ext4")


def _make_drive(tar: Path, final: Path) -> None:
    with file.workspace(final.parent, ".overlay") as work:
        plain = work / "layer.tar"
        proc.run(["zstd", "-q", "-d", tar, "-o", plain], timeout=_TIMEOUT)
        with plain.open("rb") as source:
            entries = list(scan(source, Limits(bytes=1 << 40)))
        root = work / "root"
        root.mkdir(mode=0o755)
        unpack: list[str | Path] = [
            "tar",
            "-C",
            root,
            "-xf",
            plain,
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
        ]
        hidden = f"--exclude={WHITEOUT}*"
        prefix = as_root()
        proc.run([*prefix, *unpack, "--numeric-owner", "-p", hidden], timeout=_TIMEOUT)
        size = sum(each.size for each in entries) + len(entries) * 8192
        made = work / "made.ext4"
        make_ext4(
            made,
            root,
            size_bytes=(size * 5 // 4 + (16 << 20)) >> 12 << 12,
            label="layer",
            uuid=str(uuid.UUID(int=zlib.crc32(str(tar).encode()), version=4)),
            when=_WHEN,
            prefix=prefix,
        )
        script = debugfs_script(entries)
        if script:
            done = proc.run(
                ["debugfs", "-w", "-f", "-", made], timeout=_TIMEOUT, input=script.encode()
            )
            _complain(done.stderr)
        made.chmod(0o444)
        made.rename(final)


def debugfs_script(entries: list[Entry]) -> str:
    """Return what debugfs(8) must do for the deletions among `entries`."""
    lines = []
    for entry in entries:
        hides = entry.hides
        if hides is None:
            continue
        if any(char in hides for char in '"\n\\'):
            raise HostError(f"{hides!r} cannot be deleted in an overlay's drive")
        folder, _, name = hides.rpartition("/")
        if entry.name.endswith(OPAQUE):
            lines.append(f'ea_set "/{hides}" trusted.overlay.opaque y')
        else:
            lines += [f'cd "/{folder}"', f'mknod "{name}" c 0 0']
    return "".join(f"{line}\n" for line in lines)


def _complain(stderr: str) -> None:
    said = [line for line in stderr.splitlines() if line and not line.startswith("debugfs ")]
    if said:
        raise HostError("debugfs could not mark what a layer deletes", detail="\n".join(said))
