# SPDX-License-Identifier: Apache-2.0
"""Stands for the Firecracker program, where there is no KVM: a double for the driver's own logic.

Takes the same command line, answers the same API over the same socket, connects vsock ports the
same way, and ends where the real one ends: with status 0 when its guest reboots. The guest is
machine.fake_guest. `fake.panic`, `fake.failed`, `fake.silent` in the kernel's arguments ask for a
fault, `fake.status=N` for an end with that status at once.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parent))

from firecracker_double import serving

from bugbox.machine.fake_guest import FakeGuest

VERSION = os.environ.get("FAKE_FIRECRACKER_VERSION", "1.17.0")


class Program:
    def __init__(self, args: argparse.Namespace) -> None:
        self.config = json.loads(Path(args.config_file).read_text())
        self.api, self.vsock = Path(args.api_sock), Path(self.config["vsock"]["uds_path"])
        self.words = self.config["boot-source"]["boot_args"].split()
        root = Path(args.config_file).parent
        self.guest = FakeGuest(root / "fake")
        self.inner = root / "inner"
        self.inner.unlink(missing_ok=True)
        self.state = "Running"
        self.status = asyncio.get_running_loop().create_future()
        self.tasks: set[asyncio.Future[None]] = set()

    def say(self, line: str) -> None:
        print(line, flush=True)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if path == "/version":
            return 200, {}, {"firecracker_version": VERSION}
        if path == "/":
            return 200, {}, {"id": "x", "state": self.state, "vmm_version": VERSION}
        if (method, path) == ("PATCH", "/vm"):
            self.state = {"Paused": "Paused", "Resumed": "Running"}[body["state"]]
            if self.state == "Paused":
                self.guest.running.clear()
            else:
                self.guest.running.set()
            return 204, {}, ""
        return 400, {}, {"fault_message": f"{method} {path} is not in this double"}

    def power(self, what: str) -> None:
        """What the guest's kernel does last."""
        if what == "poweroff":
            # It has no way to end the machine: its CPU stands still.
            self.guest.running.clear()
            self.say("[    9.000001] reboot: System halted")
        else:
            self.say("[    9.000001] reboot: Restarting system")
            self.end(0)

    def end(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        if asked != b"CONNECT 5252\n" or "fake.silent" in self.words:
            writer.close()
            return
        inner, outer = await asyncio.open_unix_connection(str(self.inner))
        writer.write(b"OK 1073741824\n")
        for source, sink in ((reader, outer), (inner, writer)):
            task = asyncio.ensure_future(self.carry(source, sink))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def boot(self) -> None:
        self.say("Linux version fake")
        if "fake.panic" in self.words:
            self.say("[    1.000001] Kernel panic - not syncing: fake")
            self.end(0)
        elif "fake.failed" in self.words:
            self.say("bugbox: boot failed: root: fake")
        # An init takes its time: what was asked has long been answered when the kernel goes down.
        loop = asyncio.get_running_loop()
        self.guest.on_shutdown = lambda what: void(loop.call_later(0.2, self.power, what))
        await self.guest.serve(self.inner)
        self.guest.running.set()

    async def run(self) -> int:
        for word in self.words:
            if word.startswith("fake.status="):
                print("Error: as asked for", file=sys.stderr)
                return int(word.partition("=")[2])
        # A path that is in use is an error to the real one, too.
        assert not self.vsock.exists()
        async with serving(self.api, self.answer):
            server = await asyncio.start_unix_server(self.connect, str(self.vsock))
            await self.boot()
            status = await self.status
            server.close()
            await self.guest.aclose()
            return int(status)


def void(_: object) -> None:
    """For a callback that returns nothing."""


async def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("id", "api-sock", "log-path", "level", "config-file"):
        parser.add_argument(f"--{name}", required=True)
    return await Program(parser.parse_args()).run()


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        print(f"Firecracker v{VERSION}")
        sys.exit(0)
    # As the real one, which is ended by its warden at once: nothing is waited for.
    os._exit(asyncio.run(main()))
