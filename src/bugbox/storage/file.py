# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are there whole or not at all, and locks that die with their holder.

Whatever is built is built in a *workspace*: a folder of `Home.tmp` that its builder keeps locked.
When the builder dies, by `kill -9` too, the lock is gone and `sweep` knows the folder as rubbish.
A finished one is moved to its place by `publish`, after all of it has reached the disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bugbox.errors import CommandFailed, HostError, OutOfResources
from bugbox.events import notice
from bugbox.host import proc
from bugbox.storage.privilege import as_root

__all__ = [
    "allocated",
    "digest",
    "locked",
    "publish",
    "remove_tree",
    "require_free",
    "sweep",
    "try_lock",
    "workspace",
    "write",
]


@contextmanager
def locked(path: Path, *, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path`; when somebody else holds it, say `waiting` once and wait."""
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                notice(waiting)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def try_lock(path: Path, *, create: bool = True) -> Iterator[bool]:
    """Hold the lock file or folder `path` if nobody else does; yields whether we do.

    Without `create`, one that is not there is not ours.
    """
    try:
        descriptor = _open(path, create)
    except FileNotFoundError:
        if create:
            raise
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_at(path, descriptor)
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether what we locked is still what has that name: its last holder may have removed it."""
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino  # noqa: PTH116 (beside fstat)
    except FileNotFoundError:
        return False


def _open(path: Path, create: bool) -> int:
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | (os.O_CREAT if create else 0)
    return os.open(path, flags | os.O_CLOEXEC, 0o644)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = _open(path, create=True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def workspace(tmp: Path, label: str) -> Iterator[Path]:
    """Make a folder in `tmp`, ours for the time of the block, and gone after it."""
    with locked(tmp / ".lock"):
        folder = Path(tempfile.mkdtemp(prefix=f"{label}-", dir=tmp))
        held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        if folder.exists():
            remove_tree(folder)
        os.close(held)


def sweep(tmp: Path) -> list[Path]:
    """Remove what dead builders left in `tmp`; return what was removed."""
    removed: list[Path] = []
    with locked(tmp / ".lock"):
        for entry in sorted(tmp.iterdir()):
            if entry.name.startswith("."):  # locks
                continue
            with try_lock(entry, create=False) as ours:
                if ours:
                    remove_tree(entry)
                    removed.append(entry)
    return removed


def publish(made: Path, final: Path) -> None:
    """Move a finished folder or file to its place, safely on disk. A folder already there stays."""
    _sync(made)
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        return
    made.rename(final)
    _sync_one(final.parent)


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by a file with `data`: a reader sees the old one or the new one, whole."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    _sync_one(path.parent)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, also what belongs to our subordinate users."""
    if not folder.is_dir() or folder.is_symlink():
        folder.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(folder)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        try:
            proc.run([*as_root(), "rm", "-rf", "--one-file-system", folder], timeout=300)
        except CommandFailed as error:
            raise HostError(f"cannot remove {folder}", detail=error.stderr) from error


def allocated(path: Path) -> int:
    """Return how many bytes a file, or all in a folder, take on the disk (holes take none)."""
    total = 0
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        with contextlib.suppress(FileNotFoundError):
            total += entry.lstat().st_blocks * 512
    return total


def digest(path: Path) -> str:
    """Return a file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_free(folder: Path, size: int, what: str) -> None:
    """Raise OutOfResources when the disk of `folder` has less than `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise OutOfResources(
            f"{what} needs {size >> 20} MiB in {folder}, and {free >> 20} MiB are free",
            hint="free some space, or set BUGBOX_HOME to a folder on a larger disk",
        )


def _sync(path: Path) -> None:
    for entry in [*path.rglob("*"), path] if path.is_dir() else [path]:
        kind = entry.lstat().st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            _sync_one(entry)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
