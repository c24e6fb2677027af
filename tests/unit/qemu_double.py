# SPDX-License-Identifier: Apache-2.0
"""A QEMU that is none: its monitor, console and lifeline port, as the driver sees them.

It does what the real one was seen to do (tests/vm shows the same behaviour on a real one), and
lets a test make it say or refuse anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bugbox.host.proc import Process, spawn
from bugbox.machine.fake_guest import FakeGuest
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.machine.spec import Kernel, MachineSpec
from bugbox.machine.state import State

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": "double"},
        "capabilities": ["oob"],
    }
}


class QemuDouble:
    """Serves the three sockets. Its guest answers the lifeline when `guest` is up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = "prelaunch"
        self.commands: list[str] = []
        #: Commands that get no answer, and commands that are refused.
        self.silent: set[str] = set()
        self.refused: set[str] = set()
        #: What the guest does after a reset or start: come up, or stay silent.
        self.comes_up = True
        self.guest = FakeGuest(folder / "guest")
        self._monitor: asyncio.StreamWriter | None = None
        self._console: asyncio.StreamWriter | None = None
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._up = False

    async def start(self) -> None:
        (self.folder / "guest").mkdir(exist_ok=True)
        for name, serve in (("qmp", self._qmp), ("console", self._serial)):
            server = await asyncio.start_unix_server(serve, str(self.folder / name))
            self._servers.append(server)

    async def aclose(self) -> None:
        for server in self._servers:
            server.close()
        for client in list(self._clients):
            client.close()
            with contextlib.suppress(OSError):
                await client.wait_closed()
        await self._down()

    async def event(self, name: str, **data: object) -> None:
        assert self._monitor is not None
        stamp = {"seconds": 1, "microseconds": 2}
        self._send({"event": name, "data": data, "timestamp": stamp})
        await self._monitor.drain()

    async def say(self, text: str) -> None:
        while self._console is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        self._console.write(text.encode())
        await self._console.drain()

    async def reboot(self) -> None:
        """The guest resets its machine."""
        await self._down()
        await self.event("RESET", guest=True, reason="guest-reset")
        await self._come_up()

    async def power_off(self) -> None:
        await self._down()
        self.status = "shutdown"
        await self.event("SHUTDOWN", guest=True, reason="guest-shutdown")
        await self.event("STOP")

    async def fill_disk(self) -> None:
        self.status = "io-error"
        for _ in range(3):  # one for each write in flight
            await self.disk_error()
        await self.event("STOP")

    async def disk_error(self) -> None:
        await self.event(
            "BLOCK_IO_ERROR",
            device="",
            **{"node-name": "root"},
            operation="write",
            action="stop",
            nospace=True,
            reason="No space left on device",
        )

    def hang_up(self) -> None:
        """Close every connection, as a dying process does."""
        for client in list(self._clients):
            client.close()

    async def _come_up(self) -> None:
        if self.comes_up and not self._up:
            self._up = True
            self.guest = FakeGuest(self.folder / "guest")
            (self.folder / "lifeline").unlink(missing_ok=True)
            await self.guest.serve(self.folder / "lifeline")

    async def _down(self) -> None:
        if self._up:
            self._up = False
            await self.guest.aclose()

    async def _serial(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        self._console = writer
        while await reader.read(1000):
            pass

    async def _qmp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.add(writer)
        self._monitor = writer
        self._send(GREETING)
        pending = ""
        while data := await reader.read(65536):
            # Commands are JSON documents one after another, without an end of line.
            pending += data.decode()
            while pending := pending.lstrip():
                try:
                    request, end = json.JSONDecoder().raw_decode(pending)
                except ValueError:
                    break
                pending = pending[end:]
                await self._answer(request)

    async def _answer(self, request: dict[str, Any]) -> None:
        command = str(request.get("execute"))
        self.commands.append(command)
        if command in self.silent:
            return
        if command in self.refused:
            error = {"class": "GenericError", "desc": f"{command} is not for you"}
            self._send({"error": error, "id": request.get("id")})
            return
        value: object = {}
        if command == "query-status":
            value = {"status": self.status, "running": self.status == "running"}
        self._send({"return": value, "id": request.get("id")})
        if command == "cont":
            self.status = "running"
            await self._come_up()
        elif command == "stop":
            self.status = "paused"
        elif command == "system_reset":
            await self._down()
            await self.event("RESET", guest=False, reason="host-qmp-system-reset")
            if self.status == "running":
                await self._come_up()

    def _send(self, message: dict[str, object]) -> None:
        assert self._monitor is not None
        if not self._monitor.is_closing():
            self._monitor.write(json.dumps(message).encode() + b"\r\n")


@contextlib.asynccontextmanager
async def machine_on_double(
    tmp_path: Path, *, boot_timeout: float = 10.0, state: State = State.BOOTING
) -> AsyncIterator[tuple[QemuMachine, QemuDouble, Process]]:
    """A QemuMachine over a double; a sleeping process stands for QEMU's."""
    double = QemuDouble(tmp_path)
    await double.start()
    process = spawn(["sleep", "600"], log_file=tmp_path / "vmm.log")
    spec = MachineSpec(
        id="m",
        kernel=Kernel(vmlinux=tmp_path / "k", initrd=None, release="6.1"),
        drives=(),
        root=tmp_path,
        runtime=tmp_path,
        boot_timeout=boot_timeout,
    )
    machine = QemuMachine(spec, process, factor=1.0, state=state)
    try:
        yield machine, double, process
    finally:
        await machine.release()
        await double.aclose()
        process.kill()
        process.wait_gone(5)
