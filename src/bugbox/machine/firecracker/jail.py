# SPDX-License-Identifier: Apache-2.0
"""A jail: a root folder, a user, limits and a network of its own for one VMM.

Firecracker's jailer makes all that and runs the VMM in it; it takes nothing back, not even when it
fails. So everything has a name made of the session's, is written down (the user's id is leased to
the session's folder) before it is taken, and `give_back` finds it by that name, whoever died when.

In the jail there is nothing but what `path_in` put there. A file that all may read is linked; the
session's own are linked too and given to the jail's user; what only root may read is copied.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bugbox.config import Settings
from bugbox.errors import BugboxError, HostError, MissingPrivilege, StateError
from bugbox.host import cgroup, libc, proc
from bugbox.host.bridge import in_thread, shielded
from bugbox.host.lease import Lease, Leases, tag
from bugbox.host.proc import Process, start_time
from bugbox.machine.firecracker.program import check_static
from bugbox.paths import Home

__all__ = [
    "FIRST_UID",
    "PARENT",
    "USERS",
    "Jail",
    "JailLimits",
    "Jails",
    "jailer_args",
    "jails_of",
    "mounts_below",
]

log = logging.getLogger(__name__)

#: The cgroup above all jails', and what the leases are called.
PARENT = "bugbox"
_KIND = "user ids for jails"
#: The users for jails: behind those that QEMU runs under.
FIRST_UID = 1_900_000_000 + 0x10000
USERS = 0x10000
_TAG = re.compile(r"bb[0-9a-f]{10}")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_COPY_TIMEOUT = 300.0
_KILL_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JailLimits:
    """What a jailed VMM may take."""

    memory_bytes: int
    cpus: float = 1.0
    pids: int = 64
    #: Bytes a second; 0: no limit. Needs cgroup version 2 and a disk of the state directory's own.
    io_bytes: int = 0
    #: Largest file that it may write.
    file_bytes: int
    open_files: int = 1024


def jailer_args(
    *,
    jailer: Path,
    id: str,
    vmm: Path,
    uid: int,
    base: Path,
    version: int,
    cgroups: Sequence[str],
    limits: JailLimits,
    netns: Path | None,
) -> list[str]:
    """Return the jailer's argv up to the VMM's own arguments (pure)."""
    # fmt: off
    return [
        str(jailer),
        "--id", id,
        "--exec-file", str(vmm),
        "--uid", str(uid),
        "--gid", str(uid),
        "--chroot-base-dir", str(base),
        # The jailer's own default is version 1 everywhere.
        "--cgroup-version", str(version),
        "--parent-cgroup", PARENT,
        *(word for setting in cgroups for word in ("--cgroup", setting)),
        "--resource-limit", f"fsize={limits.file_bytes}",
        "--resource-limit", f"no-file={limits.open_files}",
        *(("--netns", str(netns)) if netns else ()),
        "--",
    ]
    # fmt: on


class Jails:
    """All jails of one state directory, and the users that they have on this host."""

    def __init__(
        self, base: Path, leases: Path, *, first_uid: int = FIRST_UID, users: int = USERS
    ) -> None:
        self.base = base
        self._first_uid = first_uid
        self._leases = Leases(leases, _KIND, users)
        self._locks = leases / "jails.lock"

    def take_uid(self, owner: Path) -> int:
        """Lease a user that no other jail of this host has. OutOfResources when there is none."""
        uid = self._lease(owner)
        if uid is None:
            for each in self._stale():
                self._end_stale(each)
            uid = self._lease(owner)
        if uid is None:
            raise self._leases.full("stop a machine, or run bugbox gc")
        return uid

    def give_back(self, owner: Path) -> None:
        """Kill what runs in the owner's jail, and remove it; nothing there is fine."""
        with self._alone(owner) as lease:
            self._remove(owner, None if lease is None else _uid(lease))
            self._leases.end(owner)

    def clear(self, owner: Path) -> None:
        """Remove what an earlier start left in the owner's jail; the user stays leased."""
        with self._alone(owner) as lease:
            self._remove(owner, None if lease is None else _uid(lease))

    def end(self, owner: Path) -> None:
        """Kill what runs in the owner's jail, which stays. StateError: some of it does not end.

        A jailed VMM does not die with its warden: the kernel forgets that when it changes its user.
        """
        with self._alone(owner) as lease:
            if lease is not None:
                _end_processes_of(self._name(owner), _uid(lease))

    def sweep(self) -> list[str]:
        """Remove the jails of sessions that are gone; return what was removed.

        One that cannot be removed yet keeps its user, and nobody from the others.
        """
        mine = [owner for owner in self._stale() if self._is_mine(owner)]
        removed = [f"jail of {owner.name}" for owner in mine if self._end_stale(owner)]
        with self._leases.locked() as book:
            known = {self._name(lease.owner) for lease in book.all()}
            for folder in self._folders():
                if folder.name not in known:
                    with _or_later(f"jail {folder.name}") as what:
                        _end_processes_of(folder.name, None)
                        _remove_groups(folder.name)
                        _remove_root(folder)
                        removed.append(what)
        return removed

    def _lease(self, owner: Path) -> int | None:
        with self._leases.locked() as book:
            lease = book.take(owner, self._leases.size, {})
            if lease is None:
                return None
            uid = self._first_uid + lease.number
            book.take(owner, self._leases.size, {"uid": uid})
            return uid

    def _stale(self) -> list[Path]:
        with self._leases.locked() as book:
            return [lease.owner for lease in book.all() if lease.stale]

    def _end_stale(self, owner: Path) -> bool:
        """Remove the jail of an owner that is gone; False: it cannot be, or somebody else has."""
        with _or_later(f"jail of {owner.name}"), self._alone(owner) as lease:
            if lease is not None and lease.stale:
                self._remove(owner, _uid(lease))
                self._leases.end(owner)
                return True
        return False

    @contextlib.contextmanager
    def _alone(self, owner: Path) -> Iterator[Lease | None]:
        """Have one jail alone, and yield its lease, which nobody else can end meanwhile.

        What takes long is done so, and not under the lock of all leases. A lease's end must not
        overtake it: the user would be another jail's, and that one's processes be killed.
        """
        self._locks.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(self._locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # One byte for each owner, far behind the file's end.
            at = int(tag(owner), 16)
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, at, 1, 0)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLKW, wanted)
            with self._leases.locked() as book:
                lease = book.of(owner)
            yield lease
        finally:
            os.close(lock)

    def _is_mine(self, owner: Path) -> bool:
        """Leases are the whole host's; a jail's folder is known by its own state directory."""
        return owner.is_relative_to(self.base.parent)

    def _name(self, owner: Path) -> str:
        return f"bb{tag(owner)}"

    def _folders(self) -> list[Path]:
        """The folders of all jails, whatever their VMM is called."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(p for p in self.base.glob("*/*") if _TAG.fullmatch(p.name))
        return []

    def _remove(self, owner: Path, uid: int | None) -> None:
        name = self._name(owner)
        # The jailer first: it may be at work on what is removed then.
        _end_processes_of(name, uid)
        _remove_groups(name)
        for folder in self._folders():
            if folder.name == name:
                _remove_root(folder)


@contextlib.contextmanager
def _or_later(what: str) -> Iterator[str]:
    """Go on with the next one when this one cannot be removed."""
    try:
        yield what
    except (BugboxError, OSError) as error:
        log.warning("%s cannot be removed yet: %s", what, error)


def _uid(lease: Lease) -> int:
    return int(lease.facts["uid"])


def jails_of(home: Home, settings: Settings) -> Jails:
    """Return where a state directory's jails are; their users come after QEMU's."""
    first = settings.uid_base or FIRST_UID - USERS
    return Jails(home.jails, home.leases, first_uid=first + USERS)


class Jail:
    """One VMM's jail. `async with` takes it and gives it back; or `take` and `give_back`.

    Without `netns` it has an empty network, which is made when it starts and ends with it.

    A machine outlives the process that made it, so sessions use the latter two.
    """

    def __init__(
        self,
        jails: Jails,
        owner: Path,
        *,
        jailer: Path,
        vmm: Path,
        limits: JailLimits,
        netns: Path | None = None,
    ) -> None:
        self._jails = jails
        self._owner = owner
        self._jailer = jailer
        self._vmm = vmm
        self._limits = limits
        self._netns = netns
        self.id = f"bb{tag(owner)}"
        self.uid = -1
        self.argv: list[str] = []

    @property
    def gid(self) -> int:
        """The jail's group, which is named as its user."""
        return self.uid

    @property
    def program(self) -> str:
        """What the jailer calls the VMM inside."""
        return self._vmm.resolve().name

    @property
    def root(self) -> Path:
        """The folder that is `/` inside."""
        return self._jails.base / self.program / self.id / "root"

    async def __aenter__(self) -> Self:
        await in_thread(self.take)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await shielded(lambda: in_thread(self.give_back))

    def take(self) -> None:
        """Check the programs, lease the user, make root and limits; on failure nothing is left.

        MissingTool, MissingPrivilege, HostError, OutOfResources.
        """
        self._check()
        groups = cgroup.find()
        self._jails.clear(self._owner)
        # The one that was leased before, if any: a tap may be that user's already.
        self.uid = self._jails.take_uid(self._owner)
        try:
            self.root.mkdir(mode=0o700, parents=True)
            os.chown(self.root, self.uid, self.gid)
            device = cgroup.device_of(self.root)
            if device is not None:
                groups.limit_io(f"{PARENT}/{self.id}", device, self._limits.io_bytes)
        except BaseException:
            self.give_back()
            raise
        limits = cgroup.Limits(
            memory_bytes=self._limits.memory_bytes, cpus=self._limits.cpus, pids=self._limits.pids
        )
        alone = [] if self._netns else [proc.find("unshare"), "--net", "--"]
        self.argv = alone + jailer_args(
            jailer=self._jailer,
            id=self.id,
            vmm=self._vmm,
            uid=self.uid,
            base=self._jails.base,
            version=groups.version,
            cgroups=groups.settings(limits),
            limits=self._limits,
            netns=self._netns,
        )

    def give_back(self) -> None:
        """End the VMM, if it runs, and remove all of the jail."""
        self._jails.give_back(self._owner)

    def path_in(self, path: Path, *, writable: bool = False, name: str = "") -> str:
        """Put a file or block device into the jail; return what it is called there.

        `writable` files are the session's own: they become the jail's user's. What lies on another
        filesystem is mounted, which a VMM sees only when it starts afterwards.
        """
        inside = self.root / (name or path.name)
        status = path.stat()
        _check_inside(self.root, inside)
        if inside.exists() and os.path.samestat(inside.stat(), status):
            pass
        elif stat.S_ISBLK(status.st_mode):
            os.mknod(inside, stat.S_IFBLK | 0o600, status.st_rdev)
            os.chown(inside, self.uid, self.gid)
        elif not writable and not status.st_mode & stat.S_IROTH and status.st_uid != self.uid:
            self._copy(path, inside)
        else:
            _link(path, inside)
        if writable and not stat.S_ISBLK(status.st_mode):
            os.chown(inside, self.uid, self.gid)
            inside.chmod(0o600)
        return f"/{inside.relative_to(self.root)}"

    def _copy(self, path: Path, inside: Path) -> None:
        proc.run(
            ["cp", "--reflink=auto", "--sparse=always", "--", path, inside], timeout=_COPY_TIMEOUT
        )
        os.chown(inside, self.uid, self.gid)
        inside.chmod(0o400)

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise MissingPrivilege("jails are for root to make", hint="run it as root")
        proc.find(str(self._jailer))
        proc.find("unshare")
        check_static(self._vmm)
        if self._netns is not None and not self._netns.exists():
            raise StateError(f"the network namespace {self._netns} is gone")
        self._jails.base.mkdir(mode=0o711, parents=True, exist_ok=True)
        flags = os.statvfs(self._jails.base).f_flag
        for flag, word in ((os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec")):
            if flags & flag:
                raise HostError(
                    f"{self._jails.base} lies on a filesystem mounted {word}: no VMM runs there",
                    hint="set BUGBOX_HOME to a folder on another filesystem, or mount it without",
                )


def _check_inside(root: Path, place: Path) -> None:
    """Only a plain name: the VMM may have made links of any kind in its root."""
    if place.parent != root or place.name in ("", ".", "..") or place.is_symlink():
        raise StateError(f"{place} is no place in a jail")


def _link(path: Path, inside: Path) -> None:
    inside.unlink(missing_ok=True)
    try:
        os.link(path, inside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        inside.touch()
        libc.bind_mount(str(path), str(inside))


def _end_processes_of(name: str, uid: int | None) -> None:
    """Kill the jail's jailer, and every process of the user that only this jail has.

    So nothing is missed that is in no cgroup: not yet, or not any more. StateError: some go on.
    """
    until = time.monotonic() + _KILL_TIMEOUT
    # Again until there is none: what is killed may have started others a moment before.
    while found := _processes_of(name, uid):
        for process in found:
            process.kill()
        for process in found:
            process.wait_gone(max(0.0, until - time.monotonic()))
        if time.monotonic() > until:
            pids = ", ".join(str(process.pid) for process in found)
            raise StateError(f"process {pids} does not end", hint="look at it with ps")


def _processes_of(name: str, uid: int | None) -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            started = start_time(int(entry.name))
            if started is not None and (_is_jailer(entry, name) or _runs_as(entry, uid)):
                found.append(Process(pid=int(entry.name), started=started))
    return found


def _is_jailer(entry: Path, name: str) -> bool:
    words = (entry / "cmdline").read_bytes().split(b"\0")
    return b"--chroot-base-dir" in words and name.encode() in words


def _runs_as(entry: Path, uid: int | None) -> bool:
    if uid is None:
        return False
    # The folder's own owner is root where the program may not be read.
    lines = (entry / "status").read_text(errors="replace").splitlines()
    return any(line.startswith("Uid:") and str(uid) in line.split() for line in lines)


def _remove_groups(name: str) -> None:
    with contextlib.suppress(HostError):  # no control groups here at all
        cgroup.find().remove(f"{PARENT}/{name}")


def _remove_root(folder: Path) -> None:
    """Remove a jail's folder, and the mounts in it first; what is linked there is elsewhere too.

    The folder above stays: another start may be about to make its own in it.
    """
    for place in mounts_below(Path("/proc/self/mountinfo").read_bytes(), folder.resolve()):
        libc.unmount(str(place))
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(mountinfo: bytes, folder: Path) -> list[Path]:
    """Return what is mounted below a folder, by its real path, in the order to unmount it (pure).

    The kernel writes a blank, a tab, a line's end and a backslash as three octal digits.
    """
    inside = os.fsencode(folder) + b"/"
    words = (line.split(b" ") for line in reversed(mountinfo.split(b"\n")))
    places = (_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), each[4]) for each in words if each[4:])
    return [Path(os.fsdecode(place)) for place in places if place.startswith(inside)]
