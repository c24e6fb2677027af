# SPDX-License-Identifier: Apache-2.0
"""Network namespaces by name, as `ip netns` has them, and work inside one.

A namespace belongs to a thread, and a pool's thread that went into one and did not come back would
do a stranger's work there. So each piece of work gets a thread of its own, which ends with it.
Programs that it starts inherit the namespace.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bugbox.errors import HostError, MissingPrivilege
from bugbox.host import libc

__all__ = ["FOLDER", "create", "inside", "names", "path", "remove", "users"]

T = TypeVar("T")

FOLDER = Path("/run/netns")
_OURS = "/proc/thread-self/ns/net"


def path(name: str) -> Path:
    """Return where a namespace is found by others."""
    return FOLDER / name


def names(prefix: str) -> list[str]:
    """Return the namespaces whose names begin with `prefix`."""
    try:
        return sorted(each.name for each in FOLDER.iterdir() if each.name.startswith(prefix))
    except FileNotFoundError:
        return []


def create(name: str) -> None:
    """Make a namespace; it lasts until `remove`, whoever ends. HostError when there is one."""
    _prepare_folder()
    place = path(name)
    try:
        os.close(os.open(place, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError:
        raise HostError(f"the network namespace {name} exists", hint="bugbox gc") from None

    def make() -> None:
        libc.new_network()
        libc.bind_mount(_OURS, str(place))

    try:
        _in_a_thread(make)
    except BaseException as error:
        place.unlink(missing_ok=True)
        if isinstance(error, PermissionError):
            raise MissingPrivilege(
                "network namespaces are for root", hint="run it as root"
            ) from None
        raise


def remove(name: str) -> bool:
    """Take a namespace's name away; the kernel ends it with its last process. False: no such."""
    place = path(name)
    try:
        libc.unmount(str(place))
    except OSError as error:
        # EINVAL: its maker died before it was mounted, and the name is a plain file.
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    try:
        place.unlink()
    except FileNotFoundError:
        return False
    return True


def inside(name: str, work: Callable[[], T]) -> T:
    """Do `work` in a namespace and return what it returns or raise what it raises."""
    try:
        namespace = os.open(path(name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError(f"the network namespace {name} is gone", hint="bugbox gc") from None

    def go() -> T:
        libc.enter_network(namespace)
        return work()

    try:
        return _in_a_thread(go)
    finally:
        os.close(namespace)


def users(name: str) -> list[int]:
    """Return the processes that are in a namespace."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        wanted = path(name).stat()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    its = (entry / "ns/net").stat()
                    if (its.st_dev, its.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.append(int(entry.name))
    return found


def _prepare_folder() -> None:
    """Make /run/netns a mount that every mount namespace shares, as `ip netns add` does."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        libc.share_mounts(str(FOLDER))
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: it is no mount yet
            raise
        _mount_folder()


def _mount_folder() -> None:
    """Mount it unless somebody else was faster: a second mount would hide what is in the first."""
    lock = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as `ip netns add` does
        try:
            libc.share_mounts(str(FOLDER))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            libc.bind_mount(str(FOLDER), str(FOLDER))
            libc.share_mounts(str(FOLDER))
    finally:
        os.close(lock)


def _in_a_thread(work: Callable[[], T]) -> T:
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # it is raised where the work was asked for
            failed.append(error)

    thread = threading.Thread(target=run, name="bugbox-netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
