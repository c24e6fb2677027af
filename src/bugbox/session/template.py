# SPDX-License-Identifier: Apache-2.0
"""Templates on the disk: find, adopt, publish, suspect, collect. Blocking.

    templates/KEY-CONTENT/         one immutable set: manifest.json and the PARTS
    templates/KEY-CONTENT/suspect  a clone of it failed, and why: nobody uses it any more

A folder is there whole or not at all. It is *leased* (a shared lock on the folder) while a clone is
being made, and *used* for as long as a session's record names it, since that session's disk lies
over its disk. What is neither may be collected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import HostError
from bugbox.machine.template import PARTS, Manifest, Part, Snapshot, parse
from bugbox.paths import Home
from bugbox.session.record import load_all
from bugbox.storage import file, memory
from bugbox.storage.disk import name_backing

__all__ = [
    "Adopted",
    "Stored",
    "adopt",
    "collect",
    "complete",
    "find",
    "publish",
    "stored",
    "suspect",
    "verify",
    "verify_all",
]

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_SUSPECT = "suspect"

#: Inode, size, mtime and ctime: whoever changes a file changes one of them.
_Look = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A template on the disk."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """How records refer to it."""
        return self.folder.name

    @property
    def disk(self) -> Path:
        """The disk at the moment of the save; clones' disks lie over it."""
        return self.folder / "disk.qcow2"

    @property
    def empty_disk(self) -> Path:
        """An empty disk over that one: what a clone's own is a copy of."""
        return self.folder / "clone.qcow2"


class Adopted:
    """A template whose digests were found right, open; close it when nobody clones from it."""

    def __init__(self, of: Stored, snapshot: Snapshot, looks: dict[str, _Look]) -> None:
        self.stored = of
        self.snapshot = snapshot
        self._looks = looks
        self._counting = threading.Lock()
        self._users = 0
        self._closed = self._gone = False

    @property
    def intact(self) -> bool:
        """Whether its files are those that were adopted. Quick: nothing is read."""
        with contextlib.suppress(OSError):
            return self._looks == _looks(self.stored.folder) and not suspected(self.stored.folder)
        return False

    @contextlib.contextmanager
    def leased(self) -> Iterator[None]:
        """Keep it from being collected; HostError when it is gone or being collected."""
        with _lease(self.stored.folder, fcntl.LOCK_SH) as ours:
            if not ours or not self.intact:
                raise HostError(f"template {self.stored.name} has gone or was changed")
            # For the collector: the one that was used last goes last.
            with contextlib.suppress(OSError):
                os.utime(self.stored.folder)
            with self._counting:
                if self._closed:
                    raise HostError(f"template {self.stored.name} was closed")
                self._users += 1
            try:
                yield
            finally:
                with self._counting:
                    self._users -= 1
                    self._close_unused()

    def close(self) -> None:
        """Let go of its memory once no clone is being made; machines that map it keep it."""
        with self._counting:
            self._closed = True
            self._close_unused()

    def _close_unused(self) -> None:
        if self._closed and self._users == 0 and not self._gone:
            self._gone = True
            os.close(self.snapshot.ram)


def stored(home: Home) -> list[Stored]:
    """Return all templates that can be read, the one used last first."""
    found: list[tuple[float, Stored]] = []
    with contextlib.suppress(FileNotFoundError):
        for folder in home.templates.iterdir():
            with contextlib.suppress(OSError, ValueError):
                manifest = parse((folder / _MANIFEST).read_bytes())
                found.append((folder.stat().st_mtime, Stored(folder=folder, manifest=manifest)))
    return [each for _, each in sorted(found, key=lambda pair: -pair[0])]


def find(home: Home, key: str) -> Stored | None:
    """Return the template of a key that nobody suspects."""
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(home.templates.glob(f"{key}-*")):
            with contextlib.suppress(OSError, ValueError):
                manifest = parse((folder / _MANIFEST).read_bytes())
                if manifest.key == key and not suspected(folder):
                    return Stored(folder=folder, manifest=manifest)
    return None


def adopt(of: Stored) -> Adopted:
    """Open a template; HostError when a byte of it is not as it was published."""
    looks = _looks(of.folder)
    for name in ("state", "disk.qcow2", "clone.qcow2"):
        _expect(of, name, file.digest(of.folder / name))
    size = of.manifest.mem_mib << 20
    fd, digest = memory.load(of.folder / "ram", size)
    try:
        _expect(of, "ram", digest)
        state = (of.folder / "state").read_bytes()
        if hashlib.sha256(state).hexdigest() != of.manifest.parts["state"].sha256:
            raise HostError(f"template {of.name}: state changed while it was read")
    except BaseException:
        os.close(fd)
        raise
    return Adopted(of, Snapshot(ram=fd, state=state), looks)


def verify(of: Stored) -> None:
    """Read a whole template; HostError when a byte of it is not as it was published."""
    adopt(of).close()


def verify_all(home: Home) -> list[str]:
    """Verify every template; those that are not as published become suspect and are returned."""
    wrong = []
    for each in stored(home):
        try:
            verify(each)
        except (HostError, OSError) as error:
            suspect(each, str(error))
            wrong.append(each.name)
    return wrong


def complete(work: Path, home: Home, manifest: Manifest, ram: int) -> Stored:
    """Make a template of what is in `work` (state and disks) and the memory `ram`."""
    parts: dict[str, Part] = {}
    for name in PARTS:
        path = work / name
        if name == "clone.qcow2":  # the last: its header names its place, which the others make
            name_backing(path, _place(home, manifest.key, parts) / "disk.qcow2", "qcow2")
        digest = memory.save(ram, path) if name == "ram" else file.digest(path)
        path.chmod(0o444)
        os.chown(path, os.geteuid(), os.getegid())
        parts[name] = Part(sha256=digest, size=path.stat().st_size)
    whole = dataclasses.replace(manifest, parts=parts)
    (work / _MANIFEST).write_text(whole.as_json())
    return Stored(folder=work, manifest=whole)


def publish(made: Stored, home: Home) -> Stored:
    """Put a template in its place, where `find` finds it."""
    final = _place(home, made.manifest.key, made.manifest.parts)
    file.publish(made.folder, final)
    return Stored(folder=final, manifest=made.manifest)


def _place(home: Home, key: str, parts: Mapping[str, Part]) -> Path:
    digests = "".join(parts[name].sha256 for name in ("ram", "state", "disk.qcow2"))
    content = hashlib.sha256(digests.encode()).hexdigest()
    return home.templates / f"{key}-{content[:12]}"


def suspect(of: Stored, why: str) -> None:
    """Let nobody clone from it any more; sessions that lie over its disk keep it."""
    log.warning("template %s is suspect: %s", of.name, why)
    with contextlib.suppress(OSError):
        (of.folder / _SUSPECT).write_text(why + "\n")


def suspected(folder: Path) -> bool:
    """Whether a clone of it has failed."""
    return (folder / _SUSPECT).exists()


def collect(home: Home, space: int, keep: str = "") -> list[str]:
    """Remove suspect templates, and the longest unused above `space` bytes; return what went.

    The one named `keep`, new and so not used yet, stays.
    """
    used = {record.template for record in load_all(home)}
    removed = []
    total = 0
    for each in stored(home):
        size = file.allocated(each.folder)
        total += size
        if each.name == keep or (total <= space and not suspected(each.folder)):
            continue
        if _remove(home, each.folder, used):
            total -= size
            removed.append(f"template {each.name} of {each.manifest.name}")
    return removed + _collect_halves(home, used)


def _collect_halves(home: Home, used: set[str]) -> list[str]:
    """Remove folders whose manifest cannot be read: their removal, or their disk, broke off."""
    removed = []
    with contextlib.suppress(FileNotFoundError):
        whole = {each.name for each in stored(home)}
        for folder in list(home.templates.iterdir()):
            if folder.name not in whole and _remove(home, folder, used):
                removed.append(f"template {folder.name}, which was not whole")
    return removed


def _remove(home: Home, folder: Path, used: set[str]) -> bool:
    if folder.name in used:
        return False
    with _lease(folder, fcntl.LOCK_EX) as ours:
        # Once more, now that nobody can begin to use it: whoever leased it has written a record.
        if not ours or folder.name in {record.template for record in load_all(home)}:
            return False
        (folder / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return True


@contextlib.contextmanager
def _lease(folder: Path, how: int) -> Iterator[bool]:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)


def _looks(folder: Path) -> dict[str, _Look]:
    found = {}
    for name in (*PARTS, _MANIFEST):
        info = (folder / name).stat()
        found[name] = (info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return found


def _expect(of: Stored, name: str, digest: str) -> None:
    if digest != of.manifest.parts[name].sha256:
        raise HostError(
            f"template {of.name}: {name} is not what was published",
            hint="bugbox gc removes it; the next start makes another",
        )
