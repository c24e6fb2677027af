# SPDX-License-Identifier: Apache-2.0
"""The socket that a QEMU sends its state to: for its own user, in a folder that stays ours."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bugbox.machine.qemu.migration import receiver

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
        async with receiver(runtime / "state", NOBODY) as state:
            assert runtime.stat().st_uid == 0
            sender = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SENDER, str(runtime / "state"), user=NOBODY, group=NOBODY
            )
            assert await sender.wait() == 0
            return await state.whole(30)

    assert asyncio.run(main()) == b"a state"
    assert runtime.stat().st_mode & 0o777 == 0o700
    assert list(runtime.iterdir()) == []
