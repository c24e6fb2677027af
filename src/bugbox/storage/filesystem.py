# SPDX-License-Identifier: Apache-2.0
"""Make an ext4 image from a folder, without mounting anything.

mke2fs copies owners, modes, times (whole seconds), hard links and extended attributes (ACLs and
file capabilities are those). It must run in the same user namespace in which the folder was made:
see `privilege`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bugbox.errors import CommandFailed, OutOfResources
from bugbox.host import proc

__all__ = ["make_empty", "make_ext4"]


def make_empty(
    image: Path, *, size_bytes: int, kind: str | None, label: str, options: Sequence[str] = ()
) -> None:
    """Make a sparse raw `image`, with an empty ext2, ext3 or ext4 on it when `kind` names one."""
    image.unlink(missing_ok=True)
    with image.open("xb") as file:
        file.truncate(size_bytes)
    if kind is None:
        return
    argv = ["mke2fs", "-q", "-F", "-t", kind, "-L", label, "-E", "root_owner=0:0", *options]
    try:
        proc.run([*argv, image], timeout=120)
    except BaseException:
        image.unlink(missing_ok=True)
        raise


def make_ext4(
    image: Path,
    folder: Path,
    *,
    size_bytes: int,
    label: str,
    uuid: str,
    when: int,
    prefix: Sequence[str] = (),
    timeout: float = 600,
) -> None:
    """Fill a new, sparse ext4 `image` with what is in `folder`.

    What would differ from run to run is the caller's: `uuid` (also the seed of the directory hash)
    and `when` (seconds; the filesystem's own times). A file's time of change (ctime) is that of the
    folder's file: no tool can set it.
    """
    features = (
        f"hash_seed={uuid}",
        "root_owner=0:0",
        # Otherwise the guest's kernel writes the inode tables at every session's first mount.
        "lazy_itable_init=0",
        "lazy_journal_init=0",
    )
    argv = [
        *prefix,
        "env",
        f"E2FSPROGS_FAKE_TIME={when}",
        f"SOURCE_DATE_EPOCH={when}",
        *("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-U", uuid),
        # One percent for root instead of five: nothing but the learner's work fills this disk.
        *("-m", "1", "-E", ",".join(features), "-d", str(folder)),
        str(image),
        f"{size_bytes >> 10}k",
    ]
    try:
        proc.run(argv, timeout=timeout)
    except CommandFailed as error:
        image.unlink(missing_ok=True)
        if "No space left" in error.stderr or "Could not allocate" in error.stderr:
            raise OutOfResources(
                f"{folder} does not fit in {size_bytes >> 20} MiB, or the disk is full",
                detail=error.stderr,
            ) from error
        raise
