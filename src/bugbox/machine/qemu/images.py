# SPDX-License-Identifier: Apache-2.0
"""The images of a running QEMU: one more on top of a drive, and several made one.

QEMU opens no image by name. It gets descriptors, in sets: an image that is written to now and only
read later needs one for each, of the same set. Which file a node has, its descriptors tell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from bugbox.errors import GuestError, HostError
from bugbox.machine.qemu.cmdline import block_nodes
from bugbox.machine.qemu.monitor import Monitor
from bugbox.machine.spec import Drive

__all__ = ["Overlay", "merge"]

_SET = "/dev/fdset/"
#: What `block_nodes` calls the file of an image.
_FILE = "-file"
_CANCEL_SECONDS = 10.0


class Overlay:
    """An image that a drive is to write to, known to QEMU."""

    def __init__(self, drive: str, under: str, node: str) -> None:
        self.drive = drive
        #: The node it is put over.
        self.under = under
        #: Its own.
        self.node = node
        self._nodes: list[str] = []
        self._sets: list[int] = []

    @classmethod
    async def add(cls, monitor: Monitor, pid: int, drive: str, path: Path) -> Overlay:
        """Open an empty qcow2; its name tells it from all others. The guest sees nothing of it."""
        under = await _topmost(monitor, drive)
        made = cls(drive, under, path.stem)
        try:
            # What is under it is only read from then on.
            await _open_again(monitor, pid, under, os.O_RDONLY)
            await made._open(monitor, path)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await made.remove(monitor)
            raise
        return made

    @property
    def switch(self) -> dict[str, Any]:
        """The action that puts it on top."""
        data = {"node": self.under, "overlay": self.node}
        return {"type": "blockdev-snapshot", "data": data}

    async def _open(self, monitor: Monitor, path: Path) -> None:
        number = None
        for flags in (os.O_RDWR, os.O_RDONLY):
            number = await _give(monitor, path, flags, number)
            self._sets = [number]
        assert number is not None
        image = Drive(id=self.drive, path=path, format="qcow2")
        for node in block_nodes(self.node, image, number, None):
            await monitor.execute("blockdev-add", node)
            self._nodes.append(str(node["node-name"]))

    async def remove(self, monitor: Monitor) -> None:
        """Let QEMU forget it, which is not in use."""
        await _forget(monitor, self._nodes, self._sets)


async def merge(
    monitor: Monitor, pid: int, drive: str, images: Sequence[Path], limit: float
) -> None:
    """Move what the first of `images` hold into the last, which lies lowest.

    They lie on one another, below the drive's topmost image; nobody else may have them open.
    """
    known = {key: node for node, key in (await _files(monitor, pid)).items()}
    try:
        nodes = [known[_key(path.stat())] for path in images]
    except KeyError:
        raise GuestError(f"{images[0].name} is no image of this machine") from None
    await _open_again(monitor, pid, nodes[-1], os.O_RDWR)
    job = f"merge-{drive}"
    await monitor.execute(
        "block-commit",
        {
            "job-id": job,
            "device": await _topmost(monitor, drive),
            "top-node": nodes[0],
            "base-node": nodes[-1],
            # For people and tools; we never read it from there.
            "backing-file": str(images[-1]),
            # How it ended is to be read.
            "auto-dismiss": False,
        },
    )
    await _until_over(monitor, job, limit)
    # QEMU has no use for them any more, and keeps them until it is told.
    sets = await _sets_of(monitor)
    for node in nodes[:-1]:
        await _forget(monitor, [f"{node}{_FILE}", node], [sets[node]])


async def _until_over(monitor: Monitor, job: str, limit: float) -> None:
    deadline = anyio.current_time() + limit
    try:
        while (told := await _job(monitor, job)).get("status") != "concluded":
            if anyio.current_time() > deadline:
                raise GuestError(f"QEMU did not merge the machine's disks within {limit:g} s")
            await anyio.sleep(0.02)
    except BaseException:
        with anyio.CancelScope(shield=True), suppress(GuestError):
            await monitor.execute("job-cancel", {"id": job})
            await _until_over(monitor, job, _CANCEL_SECONDS)
        raise
    await monitor.execute("job-dismiss", {"id": job})
    if told.get("error"):
        raise GuestError(f"QEMU did not merge the machine's disks: {told['error']}")


async def _job(monitor: Monitor, job: str) -> dict[str, Any]:
    for each in _each(await monitor.execute("query-jobs")):
        if each.get("id") == job:
            return each
    raise GuestError("QEMU knows nothing of a merge under way")


async def _forget(monitor: Monitor, nodes: list[str], sets: list[int]) -> None:
    """Let QEMU forget nodes, the last first, and sets of descriptors; a refusal costs nothing."""
    with suppress(GuestError):
        while nodes:
            await monitor.execute("blockdev-del", {"node-name": nodes.pop()})
        while sets:
            await monitor.execute("remove-fd", {"fdset-id": sets.pop()})


async def _topmost(monitor: Monitor, drive: str) -> str:
    """Return the node that the guest's device has."""
    for each in _each(await monitor.execute("query-block")):
        if f"disk-{drive}" in str(each.get("qdev", "")).split("/"):
            return str(each.get("inserted", {}).get("node-name", ""))
    raise GuestError(f"QEMU knows no drive {drive}")


async def _files(monitor: Monitor, pid: int) -> dict[str, tuple[int, int]]:
    """Return each image's node and what tells its file from all others."""
    found = {}
    for node, number in (await _sets_of(monitor)).items():
        for fd in await _descriptors(monitor, number):
            with suppress(OSError):
                found[node] = _key(os.stat(_path(pid, fd)))  # noqa: PTH116
                break
    return found


def _key(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


async def _sets_of(monitor: Monitor) -> dict[str, int]:
    """Return each image's node and the set of descriptors that its file has."""
    told = await monitor.execute("query-named-block-nodes", {"flat": True})
    found = {}
    for each in _each(told):
        name, file = str(each.get("node-name", "")), str(each.get("file", ""))
        if name.endswith(_FILE) and file.startswith(_SET):
            found[name.removesuffix(_FILE)] = int(file.removeprefix(_SET))
    return found


async def _descriptors(monitor: Monitor, number: int) -> list[int]:
    """Return QEMU's own numbers of a set's descriptors."""
    for each in _each(await monitor.execute("query-fdsets")):
        if each.get("fdset-id") == number:
            return [int(one["fd"]) for one in _each(each.get("fds"))]
    return []


async def _open_again(monitor: Monitor, pid: int, node: str, flags: int) -> None:
    """Give QEMU one more descriptor of the file that it has for a node, in the same set."""
    number = (await _sets_of(monitor)).get(node)
    for fd in [] if number is None else await _descriptors(monitor, number):
        await _give(monitor, Path(_path(pid, fd)), flags, number)
        return
    raise GuestError(f"QEMU has no file for {node}")


async def _give(monitor: Monitor, path: Path, flags: int, number: int | None) -> int:
    """Add a descriptor of `path` to a set, or to a new one; return the set's number."""
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{path} cannot be opened: {error.strerror}") from error
    try:
        into = {} if number is None else {"fdset-id": number}
        told = await monitor.execute_with(fd, "add-fd", into)
    finally:
        os.close(fd)
    if not isinstance(told, dict) or "fdset-id" not in told:
        raise GuestError("QEMU did not take a file")
    return int(told["fdset-id"])


def _path(pid: int, fd: int) -> str:
    return f"/proc/{pid}/fd/{fd}"


def _each(told: object) -> Iterator[dict[str, Any]]:
    if isinstance(told, list):
        yield from (each for each in told if isinstance(each, dict))
