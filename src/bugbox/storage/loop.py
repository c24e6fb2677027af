# SPDX-License-Identifier: Apache-2.0
"""Loop devices: a file as a block device, for as long as somebody holds it open.

The kernel's LOOP_CTL_GET_FREE reserves nothing: between its answer and LOOP_CONFIGURE anybody may
take the device, and it goes on naming one that a stranger holds open exclusively without having
bound it. So: a lock against ourselves, a bounded number of tries against everybody else, a device
of another number when the same one stays busy, and a look at what we really got.

Every device is bound with AUTOCLEAR: it goes when its last opener goes, and there is nothing to
undo. `Loop.fd` is that opener until the device mapper or a VMM has opened it too. A device on which
binding failed is never cleared: it is somebody else's. docs/explanation/loop-devices.md tells why.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import HostError, MissingPrivilege, OutOfResources

__all__ = ["Loop", "Status", "attach", "attached", "bound_to", "release", "share", "status"]

CONTROL = Path("/dev/loop-control")

# From linux/loop.h and linux/fs.h.
_SET_FD, _CLR_FD = 0x4C00, 0x4C01
_SET_STATUS64, _GET_STATUS64 = 0x4C04, 0x4C05
_SET_DIRECT_IO, _SET_BLOCK_SIZE, _CONFIGURE = 0x4C08, 0x4C09, 0x4C0A
_CTL_ADD, _CTL_GET_FREE = 0x4C80, 0x4C82
_BLKGETSIZE64 = 0x80081272
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
#: struct loop_info64: device, inode, rdevice, offset, sizelimit; number, type, key size, flags;
#: file name, cipher name, key; two words.
_INFO = struct.Struct("<5Q4I64s64s32s2Q")
#: struct loop_config: descriptor, block size, the above, room.
_CONFIG = struct.Struct(f"<2I{_INFO.size}s64x")

#: How often binding is tried, and the longest pause between two tries, in seconds.
_TRIES = 64
_PAUSE = 0.05
#: How long we wait for our lock: who holds it for longer is not going to let go.
_LOCK_TIMEOUT = 5.0
#: Somebody was faster, the device is held, or it is on its way in or out: try again.
_RETRY = frozenset({errno.EBUSY, errno.ENOENT, errno.ENXIO, errno.EAGAIN, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class Status:
    """What a loop device is bound to."""

    device: int
    inode: int
    offset: int
    flags: int

    @property
    def read_only(self) -> bool:
        """Nothing can be written through it."""
        return bool(self.flags & _READ_ONLY)

    @property
    def autoclear(self) -> bool:
        """It goes when its last opener goes."""
        return bool(self.flags & _AUTOCLEAR)

    @property
    def direct_io(self) -> bool:
        """It goes past the host's page cache."""
        return bool(self.flags & _DIRECT_IO)


@dataclass(slots=True)
class Loop:
    """A bound loop device and the descriptor that keeps it so."""

    number: int
    fd: int

    @property
    def path(self) -> Path:
        """Its node."""
        return _node(self.number)

    @property
    def size_bytes(self) -> int:
        """How large the device is."""
        answer = fcntl.ioctl(self.fd, _BLKGETSIZE64, bytes(8))
        return int(struct.unpack("<Q", answer)[0])

    def close(self) -> None:
        """Let go of it: it is unbound now, or when its other openers let go."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


@contextmanager
def attached(
    backing: Path, *, read_only: bool, direct_io: bool = False, block_size: int = 0
) -> Iterator[Loop]:
    """Hold a loop device over `backing` for the time of the block."""
    loop = attach(backing, read_only=read_only, direct_io=direct_io, block_size=block_size)
    try:
        yield loop
    finally:
        loop.close()


def attach(backing: Path, *, read_only: bool, direct_io: bool = False, block_size: int = 0) -> Loop:
    """Bind a loop device of its own to the file `backing`.

    `direct_io` is a wish: filesystems without it are used through the page cache. `block_size` in
    bytes; 0 is the kernel's choice. OutOfResources when every device stayed busy, MissingPrivilege
    when this host does not let us.
    """
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0) | (_DIRECT_IO if direct_io else 0)
    with _opened_file(backing, read_only) as file, _control() as control, _alone(control):
        return _attach(control, file, backing, flags, block_size)


def share(backing: Path) -> Loop:
    """Return a read-only loop device over `backing`: one that is there, or else a new one.

    However many machines lie over a base image, its blocks are in the host's page cache once and
    it takes one device.
    """
    with _opened_file(backing, True) as file, _control() as control, _alone(control):
        for number in bound_to(backing):
            found = _join(number, file)
            if found is not None:
                return found
        return _attach(control, file, backing, _AUTOCLEAR | _READ_ONLY, 0)


def bound_to(backing: Path) -> list[int]:
    """Return the numbers of the loop devices over `backing`, whoever made them."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        info = backing.stat()
        for name in sorted(os.listdir("/sys/block")):  # noqa: PTH208 (names are wanted)
            if not name.startswith("loop") or not Path("/sys/block", name, "loop").is_dir():
                continue
            number = int(name.removeprefix("loop"))
            now = status(number)
            if now is not None and (now.device, now.inode) == (info.st_dev, info.st_ino):
                found.append(number)
    return found


def status(number: int) -> Status | None:
    """Return what /dev/loopN is bound to; None when it is not bound, or not there."""
    try:
        fd = os.open(_node(number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _status(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def release(backing: Path) -> list[int]:
    """Let go of every loop device over `backing`, a file that is ours alone.

    For what a dead process left. One that somebody still has open is unbound when they close it.
    """
    let_go = []
    for number in bound_to(backing):
        with contextlib.suppress(OSError):
            fd = os.open(_node(number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, _CLR_FD)
                let_go.append(number)
            finally:
                os.close(fd)
    return let_go


@contextmanager
def _opened_file(path: Path, read_only: bool) -> Iterator[int]:
    fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _control() -> Iterator[int]:
    try:
        fd = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise MissingPrivilege(
                "loop devices are for root", hint="run it as root, or use --disk qcow2"
            ) from error
        hint = "as root: modprobe loop; or use --disk qcow2"
        raise HostError(f"no loop devices: {CONTROL}: {error.strerror}", hint=hint) from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _alone(control: int) -> Iterator[None]:
    """Keep ourselves, and systemd which locks the same file, from asking at the same time.

    Others do not know the lock, so it makes nothing certain; and one who holds it for ever does
    not keep us waiting for ever.
    """
    until = time.monotonic() + _LOCK_TIMEOUT
    while time.monotonic() < until:
        try:
            fcntl.flock(control, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(random.uniform(0.0005, 0.005))
    try:
        yield
    finally:
        fcntl.flock(control, fcntl.LOCK_UN)


def _attach(control: int, file: int, backing: Path, flags: int, block_size: int) -> Loop:
    last: OSError | None = None
    was_busy: set[int] = set()
    number = -1
    for attempt in range(_TRIES):
        try:
            number = fcntl.ioctl(control, _CTL_GET_FREE)
            if number in was_busy:
                number = _another(control, number)
            return _bind(number, file, backing, flags, block_size)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise MissingPrivilege(
                    f"{_node(number)} cannot be bound: {error.strerror}",
                    hint="run it as root, outside a container; or use --disk qcow2",
                ) from error
            if error.errno not in _RETRY:
                raise
            last = error
        if number >= 0:
            was_busy.add(number)
        time.sleep(random.uniform(0, min(_PAUSE, 0.002 * (attempt + 1))))
    raise OutOfResources(
        f"no loop device for {backing}: {last.strerror if last else 'none is free'} "
        f"({_TRIES} tries, the last on {_node(number)})",
        hint="`losetup --list` shows who has them",
    ) from last


def _another(control: int, busy: int) -> int:
    """Make a device with a number that GET_FREE does not think of."""
    numbers = [
        int(name.removeprefix("loop"))
        for name in os.listdir("/sys/block")  # noqa: PTH208
        if name.startswith("loop")
    ]
    first = max([busy, *numbers]) + 1
    for number in range(first, first + 16):
        try:
            return int(fcntl.ioctl(control, _CTL_ADD, number))
        except FileExistsError:
            continue
    return busy


def _bind(number: int, file: int, backing: Path, flags: int, block_size: int) -> Loop:
    """Bind device `number`; OSError when somebody else was faster, and then it is left alone."""
    mode = os.O_RDONLY if flags & _READ_ONLY else os.O_RDWR
    fd = os.open(_node(number), mode | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            _configure(fd, file, backing, flags, block_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY, errno.ENOSYS):
                raise
            _configure_in_steps(fd, file, backing, flags, block_size)
        _verify(fd, file, flags)
    except BaseException:
        os.close(fd)
        raise
    return Loop(number, fd)


def _configure(fd: int, file: int, backing: Path, flags: int, block_size: int) -> None:
    """One step, since Linux 5.8: the device is never seen half made."""
    fcntl.ioctl(fd, _CONFIGURE, _CONFIG.pack(file, block_size, _info(backing, flags)))


def _configure_in_steps(fd: int, file: int, backing: Path, flags: int, block_size: int) -> None:
    """Bind on a kernel before 5.8. Once the first step has worked, the device is ours to clear."""
    fcntl.ioctl(fd, _SET_FD, file)
    try:
        for attempt in range(_TRIES):
            try:
                fcntl.ioctl(fd, _SET_STATUS64, _info(backing, flags & ~_DIRECT_IO))
                break
            except BlockingIOError:
                # Blocks read in between (by udev, say) lie in its cache.
                if attempt == _TRIES - 1:
                    raise
                time.sleep(random.uniform(0.01, 0.05))
        if block_size:
            fcntl.ioctl(fd, _SET_BLOCK_SIZE, block_size)
        if flags & _DIRECT_IO:
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, _SET_DIRECT_IO, 1)
    except BaseException:
        fcntl.ioctl(fd, _CLR_FD)
        raise


def _info(backing: Path, flags: int) -> bytes:
    name = os.fsencode(backing)[:63]
    return _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)


def _status(fd: int) -> Status:
    values = _INFO.unpack(fcntl.ioctl(fd, _GET_STATUS64, bytes(_INFO.size)))
    return Status(device=values[0], inode=values[1], offset=values[3], flags=values[8])


def _verify(fd: int, file: int, flags: int) -> None:
    """See that the device really shows this very file, as asked for."""
    now, info = _status(fd), os.fstat(file)
    if (now.device, now.inode) != (info.st_dev, info.st_ino):
        raise OSError(errno.EBUSY, "the device shows another file")
    if not now.autoclear or now.read_only != bool(flags & _READ_ONLY):
        fcntl.ioctl(fd, _CLR_FD)
        raise HostError("this kernel does not keep a loop device's flags")


def _join(number: int, file: int) -> Loop | None:
    """Open a device that shows this very file, read-only; None when it is no such device now."""
    try:
        fd = os.open(_node(number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Asked again with it open: from here on it cannot go.
        now, info = _status(fd), os.fstat(file)
        same = (now.device, now.inode, now.offset) == (info.st_dev, info.st_ino, 0)
        if same and now.read_only and now.autoclear:
            return Loop(number, fd)
    except OSError:
        pass
    os.close(fd)
    return None


def _node(number: int) -> Path:
    return Path(f"/dev/loop{number}")
