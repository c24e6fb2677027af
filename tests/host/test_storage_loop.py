# SPDX-License-Identifier: Apache-2.0
"""Loop devices of this host: what they are bound to, races for them, and what others do to them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bugbox.errors import HostError, MissingPrivilege, OutOfResources
from bugbox.storage import loop

ALL = os.environ.get("BUGBOX_TEST_ALL") == "1"
RACERS, ROUNDS = 8, 300 if ALL else 30
GET_FREE, SET_FD = 0x4C82, 0x4C00


def _reason() -> str:
    if os.geteuid() != 0:
        return "needs root"
    try:
        with loop.CONTROL.open("rb") as control:
            fcntl.ioctl(control, GET_FREE)
    except OSError as error:
        return f"needs loop devices: {error}"
    return ""


pytestmark = [pytest.mark.host, pytest.mark.skipif(bool(_reason()), reason=_reason())]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "image"
    path.write_bytes(b"this very image".ljust(1 << 20, b"\0"))
    yield path
    assert loop.bound_to(path) == [], "a loop device was left"


def free() -> int:
    with loop.CONTROL.open("rb") as control:
        return fcntl.ioctl(control, GET_FREE)


@contextlib.contextmanager
def stranger() -> Iterator[int]:
    """Hold the device that GET_FREE names, exclusively, without binding it."""
    while True:
        number = free()
        try:
            fd = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_EXCL)
        except OSError:  # taken by somebody else on this host in between
            continue
        if loop.status(number) is None:
            break
        os.close(fd)
    try:
        yield number
    finally:
        os.close(fd)


def test_shows_the_file_and_goes_with_its_last_opener(image: Path) -> None:
    with loop.attached(image, read_only=True) as device:
        assert os.pread(device.fd, 15, 0) == b"this very image"
        assert device.size_bytes == 1 << 20
        assert loop.bound_to(image) == [device.number]
        other = os.open(device.path, os.O_RDONLY)
        device.close()
        assert loop.bound_to(image) == [device.number], "the other opener keeps it"
        os.close(other)
        assert loop.bound_to(image) == []


def test_read_only_is_kept(image: Path) -> None:
    with loop.attached(image, read_only=True) as device:
        found = loop.status(device.number)
        assert found and found.read_only and found.autoclear
        with (
            pytest.raises(OSError, match=r"not permitted|Read-only|denied"),
            device.path.open("r+b", buffering=0) as writer,
        ):
            writer.write(b"x")


def test_writes_reach_the_file(image: Path) -> None:
    with loop.attached(image, read_only=False, block_size=4096) as device:
        os.pwrite(device.fd, b"written".ljust(4096, b"\0"), 0)
        os.fsync(device.fd)
    assert image.read_bytes().startswith(b"written\0")


@pytest.mark.parametrize("read_only", [True, False])
def test_a_kernel_without_loop_configure(
    image: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.EINVAL, "as before Linux 5.8")

    monkeypatch.setattr(loop, "_configure", unknown)
    with loop.attached(image, read_only=read_only, block_size=4096) as device:
        found = loop.status(device.number)
        assert found and found.autoclear and found.read_only is read_only
        assert os.pread(device.fd, 15, 0) == b"this very image"


def test_steps_that_fail_leave_nothing(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.EINVAL, "as before Linux 5.8")

    monkeypatch.setattr(loop, "_configure", unknown)
    with pytest.raises(OSError, match="Invalid"):
        loop.attach(image, read_only=True, block_size=12345)


def test_one_device_for_all_who_share(image: Path) -> None:
    first, second = loop.share(image), loop.share(image)
    with contextlib.closing(first), contextlib.closing(second):
        assert first.number == second.number
        first.close()
        assert os.pread(second.fd, 4, 0) == b"this"
        # One that can be written is not for sharing.
        with loop.attached(image, read_only=False) as own:
            assert own.number != second.number
            with contextlib.closing(loop.share(image)) as third:
                assert third.number == second.number


def test_a_device_of_a_dead_process_is_released(image: Path) -> None:
    """Bound without autoclear, as between the two steps on an old kernel."""
    number = -1
    with loop.CONTROL.open("rb") as control, image.open("rb") as file:
        for _ in range(64):
            number = fcntl.ioctl(control, GET_FREE)
            with contextlib.suppress(OSError), Path(f"/dev/loop{number}").open("rb") as device:
                fcntl.ioctl(device, SET_FD, file.fileno())
                break
    assert loop.bound_to(image) == [number]
    assert loop.release(image) == [number]
    assert loop.bound_to(image) == []


def test_a_stranger_holds_the_device_that_is_free(image: Path) -> None:
    """GET_FREE names it for ever and binding it fails for ever: move on, quickly."""
    for _ in range(8):
        with stranger() as held:
            began = time.monotonic()
            with loop.attached(image, read_only=True) as device:
                took = time.monotonic() - began
                assert device.number != held
            assert loop.status(held) is None, "what we could not bind is not ours to touch"
            assert took < 1.0


def test_every_device_stays_busy(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded: it says so instead of trying for ever."""

    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(loop, "_configure", busy)
    monkeypatch.setattr(loop, "_another", lambda _, number: number)
    monkeypatch.setattr(loop, "_PAUSE", 0.001)
    with pytest.raises(OutOfResources, match=r"no loop device for .*busy \(64 tries"):
        loop.attach(image, read_only=True)


def test_never_clears_a_device_it_could_not_bind(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is faster, every time: his device is still his afterwards."""
    his = tmp_path / "his"
    his.write_bytes(b"his".ljust(4096, b"\0"))
    with loop.attached(his, read_only=True) as device:
        real = fcntl.ioctl

        def late(fd: int, request: int, *args: object) -> object:
            return device.number if request == GET_FREE else real(fd, request, *args)  # type: ignore[call-overload]

        monkeypatch.setattr(fcntl, "ioctl", late)
        monkeypatch.setattr(loop, "_another", lambda _, number: number)
        monkeypatch.setattr(loop, "_PAUSE", 0.001)
        with pytest.raises(OutOfResources):
            loop.attach(image, read_only=True)
        assert loop.bound_to(his) == [device.number]


def test_no_loop_control(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CONTROL", image.parent / "nothing")
    with pytest.raises(HostError, match="no loop devices"):
        loop.attach(image, read_only=True)


def test_not_root(image: Path) -> None:
    """As `nobody`: a sentence that says what to do, not a traceback."""
    image.parent.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            fd = os.open("/", os.O_RDONLY)
            with loop._control():
                os.close(fd)
        except MissingPrivilege as error:
            status = 0 if "root" in error.message else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class Racer:
    """One process in a race."""

    def __init__(self, how: str, folder: Path, number: int) -> None:
        self.how = how
        file = folder / f"{how}-{number}"
        file.write_bytes(f"{how} {number}".encode().ljust(1 << 16, b"\0"))
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("loop_racer.py"), how, file, str(ROUNDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stdout.readline() == "ready\n"

    def wrong(self) -> list[str]:
        out, _ = self.process.communicate(timeout=300)
        return list(json.loads(out))


@pytest.mark.timeout(600)
def test_race(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Eight processes of ours and eight naive ones, all at once, on the same devices."""
    racers = [Racer(how, tmp_path, n) for n in range(RACERS) for how in ("ours", "naive")]
    for racer in racers:
        assert racer.process.stdin
        racer.process.stdin.write("go\n")
        racer.process.stdin.flush()
    wrong: dict[str, list[str]] = {"ours": [], "naive": []}
    for racer in racers:
        wrong[racer.how] += racer.wrong()
    total = RACERS * ROUNDS
    for how, failures in wrong.items():
        record_property(how, f"{len(failures)} of {total} failed")
        print(f"{how}: {len(failures)} of {total} failed; {sorted(set(failures))[:3]}")
    assert wrong["ours"] == []
    assert wrong["naive"], "nobody got in anybody's way: this was no race"


@pytest.mark.skipif(shutil.which("mke2fs", path="/sbin:/usr/sbin") is None, reason="needs mke2fs")
def test_the_prototypes_error(tmp_path: Path) -> None:
    """`mount -o loop` takes the loop device that is there already, and somebody has claimed it."""
    image = tmp_path / "base.img"
    subprocess.run(
        ["/sbin/mke2fs", "-q", "-t", "ext4", image, "8M"], check=True, capture_output=True
    )
    (tmp_path / "mnt").mkdir()
    with loop.attached(image, read_only=True) as device:
        claimed = os.open(device.path, os.O_RDONLY | os.O_EXCL)  # the device mapper does the same
        try:
            done = subprocess.run(
                ["unshare", "--mount", "mount", "-o", "loop,ro", image, tmp_path / "mnt"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            os.close(claimed)
        assert f"{device.path} already mounted or mount point busy." in done.stderr
