# SPDX-License-Identifier: Apache-2.0
"""Unpack a layer onto a raw image on this host: mount, tar, umount. The prototype's loader, right.

For root, and only onto a pristine image that was made here: the host's kernel mounts it. What the
prototype's lost (deletions, ACLs, capabilities, other attributes) is kept, and nothing outlives
us: the mount is in a namespace of its own, the loop device goes with its last opener.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bugbox.errors import CommandFailed, MissingPrivilege, OutOfResources
from bugbox.host import proc
from bugbox.storage import file, layer_file, loop
from bugbox.storage.archive import WHITEOUT, Entry
from bugbox.storage.disks.copy import Copy
from bugbox.storage.disks.layout import Place, Source

__all__ = ["to_raw"]

_TIMEOUT = 1800.0
# $1 the device, $2 where to mount it, $3 the folder with the tar and the lists of names, each name
# followed by a NUL. The tar was read before: no name leads out of the root.
_SCRIPT = """
set -eu
export LC_ALL=C
# -f: it was never mounted, so there is nothing to check before.
resize2fs -f "$1" >"$3/said" 2>&1 || { cat "$3/said" >&2; exit 1; }
mount -t ext4 "$1" "$2"
# Owners are numbers here; the host's names mean nothing in the image.
mount --bind /dev/null /etc/passwd
mount --bind /dev/null /etc/group
cd "$2"
xargs -0r rm -rf -- <"$3/deletions"
xargs -0r sh -c '
    for p; do if [ -d "$p" ] && [ ! -L "$p" ]; then rm -rf -- "$p"; fi; done' - <"$3/others"
xargs -0r sh -c '
    for p; do if [ ! -d "$p" ] || [ -L "$p" ]; then rm -f -- "$p"; fi; done' - <"$3/folders"
tar --extract --file="$3/layer.tar" --preserve-permissions --same-owner --numeric-owner \\
    --xattrs --xattrs-include='*' --acls --exclude="$4*" --delay-directory-restore
cd /
umount "$2"
"""


def to_raw(
    layer: Path,
    base: Path,
    output: Path,
    *,
    size_bytes: int,
    lists: Callable[[Sequence[Entry]], Mapping[str, bytes]],
) -> None:
    """Write a new raw image: the base, with the layer unpacked onto it.

    `lists` says what of the tar's members is to be deleted, a folder, or something else: names
    ended by NULs. ArchiveError when the layer breaks a rule, OutOfResources when it does not fit.
    """
    if os.geteuid() != 0:
        raise MissingPrivilege(
            "only root mounts an image", hint="leave --on-host out: it is done in a machine"
        )
    _, entries = layer_file.verify(layer)
    with file.workspace(output.parent, ".layer") as work:
        source, place = Source(base=base, size_bytes=size_bytes), Place(folder=work, tag="")
        Copy().make(source, place)
        made = Copy().layout(source, place).parts[0].path
        (work / "mnt").mkdir()
        with layer_file.opened(layer) as tar, (work / "layer.tar").open("wb") as plain:
            shutil.copyfileobj(tar, plain)
        for name, data in lists(entries).items():
            (work / name).write_bytes(data)
        with loop.attached(made, read_only=False) as device:
            _unpack(device.path, work)
        made.chmod(0o644)
        made.rename(output)


def _unpack(device: Path, work: Path) -> None:
    alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh"]
    try:
        proc.run([*alone, str(device), str(work / "mnt"), str(work), WHITEOUT], timeout=_TIMEOUT)
    except CommandFailed as error:
        if "No space left" in error.stderr:
            raise OutOfResources("the layer does not fit", detail=error.stderr) from error
        raise
