# SPDX-License-Identifier: Apache-2.0
"""What QEMU's state goes through: a socket for its own user in a folder of ours, and a pipe."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

from bugbox.machine.qemu.migration import FileReceiver, Receiver, feed, receiver

SENDER = """
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    s.sendall(b"a state")
"""
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_qemu_of_its_own_user_sends_its_state(tmp_path: Path) -> None:
    # pytest's own folders are closed to others; what is tested is the last one.
    for folder in (tmp_path, *tmp_path.parents[:3]):
        if folder != Path("/tmp"):
            folder.chmod(0o711)
    runtime = tmp_path / "one-3f9k"
    runtime.mkdir(mode=0o700)

    async def main() -> bytes:
        async with receiver(runtime / "state", NOBODY, Receiver()) as state:
            assert runtime.stat().st_uid == 0
            sender = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SENDER, str(runtime / "state"), user=NOBODY, group=NOBODY
            )
            assert await sender.wait() == 0
            return await state.whole(30)

    assert asyncio.run(main()) == b"a state"
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert list(runtime.iterdir()) == []


def _sent(folder: Path, sink: Path, size: int) -> tuple[int, str]:
    """Send `size` bytes to a socket whose receiver writes to `sink`."""

    async def main() -> tuple[int, str]:
        fd = os.open(sink, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            async with receiver(folder / "state", None, FileReceiver(fd)) as state:
                _, writer = await asyncio.open_unix_connection(str(folder / "state"))
                try:
                    for _ in range(size >> 16):
                        writer.write(bytes(1 << 16))
                        await writer.drain()
                finally:
                    writer.close()
                return await state.written(30)
        finally:
            os.close(fd)

    return asyncio.run(main())


def test_a_whole_machine_goes_into_a_file(tmp_path: Path) -> None:
    size, digest = _sent(tmp_path, tmp_path / "memory", 8 << 20)
    written = (tmp_path / "memory").read_bytes()
    assert (size, len(written)) == (8 << 20, 8 << 20)
    assert digest == hashlib.sha256(written).hexdigest()


def test_a_full_disk_ends_the_conversation(tmp_path: Path) -> None:
    """QEMU sees that nobody takes more, and gives up; we say why."""

    async def main() -> None:
        fd = os.open("/dev/full", os.O_WRONLY)
        try:
            taken = FileReceiver(fd)
            async with receiver(tmp_path / "state", None, taken):
                reader, writer = await asyncio.open_unix_connection(str(tmp_path / "state"))
                writer.write(bytes(1 << 16))
                async with asyncio.timeout(30):
                    assert await reader.read() == b""
                writer.close()
                with pytest.raises(OSError, match="No space left") as caught:
                    await taken.written(30)
                assert caught.value.errno == errno.ENOSPC
        finally:
            os.close(fd)

    asyncio.run(main())


@pytest.mark.parametrize("whole", [True, False])
def test_a_pipe_is_fed_until_its_reader_goes(tmp_path: Path, whole: bool) -> None:
    saved = tmp_path / "memory"
    saved.write_bytes(os.urandom(3 << 20))
    source, sink = os.pipe()
    fd = os.open(saved, os.O_RDONLY)
    try:
        feeder = threading.Thread(target=feed, args=(fd, sink))
        feeder.start()
        length = None if whole else 1000
        with os.fdopen(source, "rb") as pipe:
            assert pipe.read(length) == saved.read_bytes()[:length]
        feeder.join(30)
        assert not feeder.is_alive()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(sink)
    finally:
        os.close(fd)
