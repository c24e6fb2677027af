# SPDX-License-Identifier: Apache-2.0
"""A tar of plain files and folders behind a JSON document: packs and bundles.

The first member, `bugbox.json`, says what the file is. Whoever wrote it is not trusted: a reader
takes regular files, folders and symbolic links only, under the rules of `archive`, and writes them
into a new folder, where nothing else is. Of a mode only the run bit counts, as in git.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bugbox.storage.archive import ArchiveError, Entry, Limits, members
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry

__all__ = ["ABOUT", "BUNDLE", "PACK", "PackWriter", "extract", "read_about"]

ABOUT = "bugbox.json"
PACK = "bugbox pack 1"
BUNDLE = "bugbox bundle 1"
_ABOUT_BYTES = 1 << 20
#: 2024-01-01, UTC: the time of every member.
_WHEN = 1_704_067_200


class PackWriter:
    """Writes a pack or a bundle: `about` first, then folders and files."""

    def __init__(self, out: BinaryIO, about: dict[str, Any]) -> None:
        self._tar = TarWriter(out)
        self._folders: set[str] = set()
        text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False).encode()
        self.data(ABOUT, text)

    def data(self, name: str, data: bytes, *, run: bool = False) -> None:
        """Add a file with these contents."""
        self._above(name)
        self._tar.add(file_entry(name, len(data), mode=_mode(run), when=_WHEN), [data])

    def file(self, name: str, path: Path) -> None:
        """Add a file of this host."""
        self._above(name)
        with path.open("rb") as source:
            found = os.fstat(source.fileno())
            entry = file_entry(name, found.st_size, mode=_mode(found.st_mode & 0o111), when=_WHEN)
            self._tar.add(entry, iter(lambda: source.read(1 << 20), b""))

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._above(name)
        mode = stat.S_IFLNK | 0o777
        entry = Entry(name=name, mode=mode, uid=0, gid=0, mtime_ns=_WHEN * 10**9, target=target)
        self._tar.add(entry)

    def tree(self, name: str, folder: Path, leave_out: Callable[[str], bool]) -> None:
        """Add a folder with all in it but what `leave_out` says, by names below it."""
        self._folder(name)
        for path in sorted(folder.rglob("*")):
            below = path.relative_to(folder).as_posix()
            parts = below.split("/")
            if any(leave_out("/".join(parts[: n + 1])) for n in range(len(parts))):
                continue
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                self.link(f"{name}/{below}", os.readlink(path))  # noqa: PTH115
            elif stat.S_ISDIR(mode):
                self._folder(f"{name}/{below}")
            elif stat.S_ISREG(mode):
                self.file(f"{name}/{below}", path)
            else:
                raise ArchiveError(f"{path}: neither a file nor a folder")

    def close(self) -> None:
        """Write the end."""
        self._tar.close()

    def _above(self, name: str) -> None:
        parent = name.rpartition("/")[0]
        if parent:
            self._folder(parent)

    def _folder(self, name: str) -> None:
        if name not in self._folders:
            self._above(name)
            self._folders.add(name)
            self._tar.add(folder_entry(name, when=_WHEN))


def _mode(run: bool | int) -> int:
    return 0o755 if run else 0o644


def read_about(path: Path, kind: str) -> dict[str, Any]:
    """Return what a file says of itself; ArchiveError when it is not of that kind."""
    with _told(path), path.open("rb") as source:
        for entry, contents in members(source, Limits(bytes=_ABOUT_BYTES)):
            if entry.name != ABOUT or not stat.S_ISREG(entry.mode):
                break
            return _about(b"".join(contents), kind)
        raise ArchiveError("not a file that bugbox packed")


def _about(data: bytes, kind: str) -> dict[str, Any]:
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArchiveError(f"its {ABOUT} cannot be read: {error}") from error
    said = about.get("format") if isinstance(about, dict) else None
    if said != kind:
        raise ArchiveError(f"its format is {said!r}, expected {kind!r}")
    return dict(about)


def extract(path: Path, to: Path, limits: Limits, *, links_below: str = "") -> None:
    """Write all but `bugbox.json` into the new folder `to`.

    Symbolic links are taken below the folder `links_below` only: elsewhere a reader would follow
    them.
    """
    to.mkdir()
    with _told(path), path.open("rb") as source:
        for entry, contents in members(source, limits):
            if entry.name in (".", ABOUT):
                continue
            if stat.S_ISLNK(entry.mode) and not (
                links_below and entry.name.startswith(f"{links_below}/")
            ):
                raise ArchiveError(f"{entry.name}: a symbolic link")
            _write(entry, contents, to / entry.name)


def _write(entry: Entry, contents: Iterator[bytes], path: Path) -> None:
    kind = stat.S_IFMT(entry.mode)
    # The rules of `members`: no name twice, and each folder written by us before what is in it.
    if kind == stat.S_IFDIR:
        path.mkdir(mode=0o755)
    elif kind == stat.S_IFLNK:
        path.symlink_to(entry.target)
    elif kind == stat.S_IFREG and not entry.link_to and entry.hides is None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, _mode(entry.mode & 0o111)), "wb") as out:
            for data in contents:
                out.write(data)
    else:
        raise ArchiveError(f"{entry.name}: neither a file, a folder nor a symbolic link")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error.message}", hint=error.hint) from error
