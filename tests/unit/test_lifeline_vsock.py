# SPDX-License-Identifier: Apache-2.0
"""The lifeline through a VMM's socket for vsock ports."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bugbox.errors import MachineLost
from bugbox.machine.fake_guest import FakeGuest
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.lifeline.vsock import LIFELINE_PORT, dial

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Vmm:
    """Passes connections on as Firecracker does; `listening` says whether the guest listens."""

    def __init__(self, folder: Path) -> None:
        self.path, self.guest = folder / "vsock", folder / "guest"
        self.listening = True
        self.answer = b"OK 1073741824\n"
        self.asked: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.asked.append(await reader.readline())
        if not self.listening:
            writer.close()
            return
        writer.write(self.answer)
        try:
            inner, outer = await asyncio.open_unix_connection(str(self.guest))
        except OSError:
            return
        self.writers.append(outer)
        for source, sink in ((reader, outer), (inner, writer)):
            task = asyncio.ensure_future(self.carry(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(4096):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


@pytest.fixture
async def vmm(tmp_path: Path) -> AsyncIterator[Vmm]:
    passes = Vmm(tmp_path)
    server = await asyncio.start_unix_server(passes.serve, str(passes.path))
    yield passes
    server.close()
    for writer in passes.writers:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    await asyncio.gather(*passes.tasks, return_exceptions=True)


async def test_a_port_is_dialled_and_nothing_after_the_answer_is_lost(vmm: Vmm):
    vmm.answer = b"OK 1073741824\nhello"
    sock = await dial(vmm.path, 7)
    assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"hello"
    assert vmm.asked == [b"CONNECT 7\n"]
    sock.close()


async def test_nobody_listens_in_the_guest(vmm: Vmm):
    vmm.listening = False
    with pytest.raises(MachineLost, match="nobody listens"):
        await dial(vmm.path, 7)


@pytest.mark.parametrize("answer", [b"NO\n", b"x" * 100, b"\n"])
async def test_an_answer_that_is_none(vmm: Vmm, answer: bytes):
    vmm.answer = answer
    with pytest.raises(MachineLost):
        await dial(vmm.path, 7)


async def test_a_guest_that_still_boots_lets_the_question_hang(vmm: Vmm):
    vmm.answer = b""
    with pytest.raises(MachineLost, match="does not answer"):
        await dial(vmm.path, 7, timeout=0.05)


async def test_without_a_vmm_it_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError):
        await dial(tmp_path / "vsock", 7)


async def test_our_link_is_followed_and_no_other(vmm: Vmm, tmp_path: Path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.symlink_to(vmm.path)
    (await dial(ours, 7)).close()
    ours.unlink()
    ours.symlink_to(theirs)
    theirs.symlink_to(vmm.path)
    with pytest.raises(PermissionError):
        await dial(ours, 7)
    assert vmm.asked == [b"CONNECT 7\n"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
async def test_a_socket_of_anothers_is_not_dialled(vmm: Vmm):
    os.chown(vmm.path, 65534, 65534)
    with pytest.raises(PermissionError):
        await dial(vmm.path, 7)
    assert vmm.asked == []


async def test_the_lifeline_waits_for_its_guest_and_comes_back_when_it_is_cut_off(vmm: Vmm):
    vmm.listening = False
    fake = FakeGuest(vmm.guest.parent / "root")
    await fake.serve(vmm.guest)
    lifeline = Lifeline(vmm.path, port=LIFELINE_PORT)
    connecting = asyncio.ensure_future(lifeline.connect(30))
    async with asyncio.timeout(30):
        while len(vmm.asked) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    vmm.listening = True
    await connecting
    assert (await lifeline.run(["echo", "on"])).stdout == b"on\n"
    # A load of a snapshot resets every connection.
    lost = asyncio.Event()
    lifeline.on_lost = lambda error: lost.set()
    for writer in vmm.writers:
        writer.close()
    await asyncio.wait_for(lost.wait(), 30)
    assert (await lifeline.run(["echo", "again"])).stdout == b"again\n"
    assert set(vmm.asked) == {b"CONNECT %d\n" % LIFELINE_PORT}
    await lifeline.aclose()
    await fake.aclose()
