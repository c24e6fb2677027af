# SPDX-License-Identifier: Apache-2.0
"""A whole bugbox without a VM: a home, a small puzzle, its built parts, and the fake driver."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio

from bugbox.config import Settings
from bugbox.host.proc import Process, start_time
from bugbox.machine.fake import FakeDriver
from bugbox.paths import Home
from bugbox.puzzle.definition import load
from bugbox.session import drivers, maker, prepare
from bugbox.session.manager import Manager
from bugbox.session.plan import Plan, of_image, of_puzzle
from bugbox.session.prepare import Prepared
from bugbox.session.provision import Host
from bugbox.session.session import Session
from bugbox.session.terminal import Ended, Output, Seat

T = TypeVar("T")

#: Seconds that what must come may take: it only bounds a failure, on a host as slow as it may be.
PATIENCE = 60.0 * float(os.environ.get("BUGBOX_TIMEOUT_FACTOR", "1"))

MANIFEST = """\
schema: 1
name: tiny
title: A tiny puzzle
summary: Make the file.
user: {name: learner}
checks:
  - {id: made, title: The file is there, run: checks/made.sh}
hints:
  - {title: First, file: hints/1.md}
  - {title: Second, file: hints/2.md, not_before: 1h}
"""
FILES = {
    "puzzle.yaml": MANIFEST,
    "description.md": "There should be a file.\n",
    "checks/made.sh": '#!/bin/sh\n[ -e "$FAKE_ROOT/made" ] || { echo "No file yet."; exit 1; }\n',
    "hints/1.md": "Look.\n",
    "hints/2.md": "touch made\n",
    "solve.sh": '#!/bin/sh\ntouch "$FAKE_ROOT/made"\n',
    "solution.md": "Touch it.\n",
    "debrief.md": "It was not there.\n",
    "boot.sh": '#!/bin/sh\necho boot >> "$FAKE_ROOT/log"\n',
    "break.sh": '#!/bin/sh\necho break >> "$FAKE_ROOT/log"\n',
    "session.sh": '#!/bin/sh\necho session >> "$FAKE_ROOT/log"\n',
    "ready.sh": '#!/bin/sh\necho ready >> "$FAKE_ROOT/log"\n',
}


class World:
    """Everything a session needs, under one temporary folder."""

    def __init__(self, folder: Path, *, templates: str = "off") -> None:
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.prepare()
        self.settings = Settings(
            uid_base=0, keeper_idle=600.0, timeout_factor=2.0, templates=templates
        )
        self.puzzle = folder / "puzzles" / "tiny"
        for name, text in FILES.items():
            self.write(name, text)
        base = folder / "base.ext4"
        base.write_bytes(b"\0" * (1 << 20))
        self.parts = Prepared(
            kernel=SimpleNamespace(vmlinux=base, release="6.1", digest="0"),  # type: ignore[arg-type]
            initrd=base,
            image=SimpleNamespace(rootfs=base, name="debian-12", digest="0"),  # type: ignore[arg-type]
            layer=None,
        )

    @property
    def host(self) -> Host:
        return Host(home=self.home, settings=self.settings, driver=FakeDriver())

    def write(self, name: str, text: str) -> None:
        """Put a file into the puzzle's folder."""
        path = self.puzzle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if name.endswith(".sh"):
            path.chmod(0o755)

    def plan(self, **changes: Any) -> Plan:
        return replace(of_puzzle(load(self.puzzle)), **changes)

    def bare(self, **changes: Any) -> Plan:
        return replace(of_image("debian-12"), **changes)

    def log(self, id: str) -> list[str]:
        """What the guest's scripts wrote."""
        return (self.home.session(id).root / "fake" / "log").read_text().split()

    def wire(self) -> None:
        """Make the session layer of this very process find the fake parts and the fake driver."""
        drivers.DRIVERS.clear()
        drivers.DRIVERS["fake"] = lambda home, settings: FakeDriver()
        prepare.find = lambda home, settings, wanted, booted="": self.parts

    def leftovers(self) -> list[str]:
        """Everything of any session: folders, sockets, processes."""
        found = [str(path) for path in self.home.sessions.iterdir()]
        if self.home.runtime.exists():
            found += [str(path) for path in self.home.runtime.iterdir() if path.is_dir()]
        return found + [f"pid {pid}" for pid in self.processes()]

    def processes(self) -> list[int]:
        """Fake VMMs that live in this home."""
        marker = str(self.home.runtime).encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = entry.name.isdigit() and marker in (entry / "cmdline").read_bytes()
                if ours and start_time(int(entry.name)) is not None:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@contextmanager
def world(folder: Path, *, templates: str = "off") -> Iterator[World]:
    """Make one, and leave nothing of it behind."""
    made = World(folder, templates=templates)
    before = dict(drivers.DRIVERS), prepare.find, maker._IDLE_LOOKS
    maker._IDLE_LOOKS = 1  # nothing of a fake guest ends by itself
    try:
        yield made
    finally:
        drivers.DRIVERS.clear()
        drivers.DRIVERS.update(before[0])
        prepare.find, maker._IDLE_LOOKS = before[1:]
        for pid in made.processes():
            started = start_time(pid)
            if started is not None:
                Process(pid=pid, started=started).kill()
        shutil.rmtree(made.home.runtime, ignore_errors=True)


def run(work: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a coroutine; transports that were closed last get their turn."""

    async def main() -> T:
        try:
            return await work(*args)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)

    return anyio.run(main)


def eventually(condition: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Wait until `condition` holds; fail otherwise."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"never came: {condition}"
        time.sleep(0.02)


async def until(condition: Callable[[], Any], timeout: float = PATIENCE) -> None:
    """Let other tasks run until `condition` holds; fail when it never does."""
    with anyio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110 (what is waited for has no event)
            await anyio.sleep(0.002)


async def started(made: World, manager: Manager) -> Session:
    """Start the puzzle."""
    answer = await manager.answer("start", {"puzzle": str(made.puzzle)})
    return (await manager.find(answer["id"])).session


async def read_until(seat: Seat, wanted: bytes) -> bytes:
    """Return what somebody at a terminal sees until `wanted` is there, notes in angle brackets."""
    seen = b""
    with anyio.fail_after(PATIENCE):
        while wanted not in seen:
            item = await seat.receive()
            assert not isinstance(item, Ended), seen
            seen += item.data if isinstance(item, Output) else f"<{item.text}>".encode()
    return seen


KEEPER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from session_world import World
from bugbox.keeper.server import serve
world = World(Path({folder!r}), templates={templates!r})
world.wire()
serve(world.home, world.settings)
"""


def keeper_argv(made: World, templates: str = "off") -> list[str]:
    """A keeper of its own process that has the fake driver."""
    path = [str(Path(__file__).parent), *sys.path]
    return [
        sys.executable,
        "-c",
        KEEPER.format(path=path, folder=str(made.folder), templates=templates),
    ]
