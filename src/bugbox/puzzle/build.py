# SPDX-License-Identifier: Apache-2.0
"""Make a puzzle's layer in a build machine: what goes in, which steps, what comes out.

The machine is booted with nothing but the lifeline running: the base read-only at /, an empty
scratch disk, and the puzzle's own disk over the base. The scripts of `guest/` do the work there,
one step each; this module brings them in, runs them in order, and passes on what build.sh says.
It knows no machine: whoever has one (session.builder) hands in its lifeline as a `BuildGuest`.

The layer is everything build.sh changed, deletions included, and arrives twice: written to the
puzzle's disk in the machine itself, and as the tar that is the puzzle's portable form.
"""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

from bugbox.errors import BuildFailed
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.inputs import EPOCH, NEVER, SCRIPTS, never, script
from bugbox.puzzle.losses import MAX_BYTES, losses
from bugbox.puzzle.quantity import format_duration
from bugbox.puzzle.text import printable

__all__ = [
    "BuildGuest",
    "Ended",
    "Running",
    "begin",
    "bring",
    "build",
    "connect",
    "rehearse",
    "step",
]

_WORK = "/run/bugbox-build"
_BASE, _SCRATCH, _TARGET = "/dev/vda", "/dev/vdb", "/dev/vdc"
#: What is kept of build.sh's output for the error message.
_KEPT_BYTES = 64 << 10
#: So many lines of it are shown while it runs; a script may print for ever.
_SHOWN_LINES = 5000
#: Our own steps, which only move data about.
_STEP_TIMEOUT = 600.0


class Ended(Protocol):
    """How a command ended."""

    @property
    def code(self) -> int:
        """Exit status as a shell says it."""


class Running(Protocol):
    """A command that runs in the guest."""

    async def send_eof(self) -> None:
        """Close its input."""

    async def receive(self) -> tuple[int, bytes] | None:
        """Return (stream, data); None at the end."""

    async def status(self) -> Ended:
        """Wait for its end."""

    async def close(self) -> None:
        """Give it up: it is killed."""


class BuildGuest(Protocol):
    """What a build needs of a lifeline."""

    async def command(self, argv: Sequence[str | bytes]) -> Running:
        """Start a command as root."""

    async def put(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        size: int | None = None,
        mode: int = 0o644,
        parents: bool = False,
    ) -> None:
        """Write a file."""


async def build(
    guest: BuildGuest,
    puzzle: Puzzle,
    inputs: Path,
    archive: Callable[[bytes], None],
    *,
    said: Callable[[str], None],
    factor: float = 1.0,
    begun: bool = False,
) -> list[str]:
    """Build the layer: on the puzzle's disk, and as a tar that `archive` gets piece by piece.

    `inputs` is what `pack` wrote. `begun`: the machine has been through `rehearse`. Each line that
    build.sh prints is given to `said`. Returned is what the layer could not take along, a sentence
    each. BuildFailed has the last lines when build.sh fails, takes longer than it may, or fills the
    disk.
    """
    if not begun:
        await begin(guest, SCRIPTS, factor)
    await bring(guest, "inputs.tar", inputs)
    await _run_build(guest, puzzle, said, factor)
    lost = bytearray()
    await step(guest, "collect.sh", [str(EPOCH), *never(puzzle)], factor, _bounded(lost, MAX_BYTES))
    await step(guest, "archive.sh", [], factor, archive)
    await step(guest, "apply.sh", [], factor)
    return losses(bytes(lost))


async def begin(guest: BuildGuest, scripts: Sequence[str], factor: float) -> None:
    """Bring in scripts of ours, and lay a writable tree over the base on the scratch disk."""
    for name in scripts:
        await guest.put(f"{_WORK}/{name}", script(name), mode=0o755, parents=True)
    await step(guest, "prepare.sh", [_BASE, _SCRATCH, _TARGET], factor)


async def rehearse(guest: BuildGuest, factor: float) -> None:
    """Make a fresh machine ready for a build, having gone through one that makes nothing.

    The second time an emulated machine does it faster. Of the first nothing is left: its scratch
    disk is made anew, and the puzzle's disk was not there yet.
    """
    for name in SCRIPTS:
        await guest.put(f"{_WORK}/{name}", script(name), mode=0o755, parents=True)
    await step(guest, "prepare.sh", [_BASE, _SCRATCH], factor)
    await bring(guest, "inputs.tar", _rehearsal())
    await step(guest, "run.sh", [str(EPOCH)], factor, _dropped)
    await step(guest, "collect.sh", [str(EPOCH), *NEVER], factor, _dropped)
    await step(guest, "archive.sh", [], factor, _dropped)
    await step(guest, "prepare.sh", [_BASE, _SCRATCH, _TARGET], factor)


def _rehearsal() -> bytes:
    """Return what a build gets, with a build.sh of ours."""
    text, out = script("rehearse.sh"), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("build.sh")
        info.size, info.mode = len(text), 0o755
        tar.addfile(info, io.BytesIO(text))
    return out.getvalue()


def _dropped(data: bytes) -> None:
    """Take output that nobody needs."""


async def connect(guest: BuildGuest, factor: float) -> None:
    """Bring up the machine's network card, before anything else; BuildFailed when it has none."""
    await guest.put(f"{_WORK}/network.sh", script("network.sh"), mode=0o755, parents=True)
    await step(guest, "network.sh", [], factor)


async def bring(guest: BuildGuest, name: str, contents: Path | bytes) -> None:
    """Write a file onto the scratch disk."""
    path = f"{_WORK}/scratch/{name}"
    if isinstance(contents, bytes):
        await guest.put(path, contents)
    else:
        await guest.put(path, _pieces(contents), size=contents.stat().st_size)


async def _run_build(
    guest: BuildGuest, puzzle: Puzzle, said: Callable[[str], None], factor: float
) -> None:
    output = _Lines(said)
    allowed = puzzle.manifest.build.timeout
    argv = _ours("run.sh", [str(EPOCH)])
    code = await _follow(guest, argv, allowed * factor, lambda _, data: output.add(data))
    output.end()
    if code == 0:
        return
    label = f"{puzzle.name}: {puzzle.build.name if puzzle.build else 'build.sh'}"
    if code is None:
        limit = format_duration(allowed)
        message = f"{label} did not end within {limit}"
        hint = "build.timeout in puzzle.yaml gives it more time, BUGBOX_TIMEOUT_FACTOR a slow host"
    elif await _is_full(guest, factor):
        message = f"{label} filled the disk of {puzzle.manifest.machine.disk >> 20} MiB"
        hint = "machine.disk in puzzle.yaml makes it larger"
    else:
        message, hint = f"{label} ended with status {code}", None
    raise BuildFailed(message, detail=output.kept(), hint=hint)


async def _is_full(guest: BuildGuest, factor: float) -> bool:
    """Whether the scratch disk has less than a megabyte left, as far as the guest can be asked."""
    said = bytearray()
    take = _bounded(said, 100)
    argv = ["/usr/bin/stat", "--file-system", "--format=%a %S", f"{_WORK}/scratch"]
    code = await _follow(guest, argv, 30 * factor, lambda _, data: take(data))
    numbers = re.fullmatch(rb"(\d{1,15}) (\d{1,9})\n", bytes(said))
    return code == 0 and numbers is not None and int(numbers[1]) * int(numbers[2]) < 1 << 20


async def step(
    guest: BuildGuest,
    name: str,
    args: list[str],
    factor: float,
    output: Callable[[bytes], None] | None = None,
) -> None:
    """Run one of our own scripts; BuildFailed with what it said when it fails."""
    complaint = bytearray()

    def take(stream: int, data: bytes) -> None:
        if stream == 1 and output is not None:
            output(data)
        elif len(complaint) < _KEPT_BYTES:
            complaint.extend(data)

    code = await _follow(guest, _ours(name, args), _STEP_TIMEOUT * factor, take)
    if code == 0:
        return
    detail = printable(bytes(complaint).decode(errors="replace"))
    what = "did not end" if code is None else f"ended with status {code}"
    if name in ("apply.sh", "unpack.sh") and "No space left" in detail:
        hint: str | None = "the layer does not fit: machine.disk in puzzle.yaml makes it larger"
    else:
        hint = None
    raise BuildFailed(f"making the layer: {name} {what}", detail=detail, hint=hint)


def _bounded(kept: bytearray, limit: int) -> Callable[[bytes], None]:
    """Return what adds data to `kept` until that has `limit` bytes, or somewhat more."""

    def take(data: bytes) -> None:
        if len(kept) < limit:
            kept.extend(data)

    return take


def _ours(name: str, args: list[str]) -> list[str]:
    return ["/bin/bash", f"{_WORK}/{name}", _WORK, *args]


async def _follow(
    guest: BuildGuest, argv: list[str], timeout: float, take: Callable[[int, bytes], None]
) -> int | None:
    """Run a command to its end; return its status, or None when time was over."""
    command = await guest.command(argv)
    try:
        async with asyncio.timeout(timeout):
            await command.send_eof()
            while (item := await command.receive()) is not None:
                take(*item)
            return (await command.status()).code
    except TimeoutError:
        return None
    finally:
        await command.close()


class _Lines:
    """Cuts output into lines as it comes, and keeps the last of it."""

    def __init__(self, said: Callable[[str], None]) -> None:
        self.said = said
        self.rest = b""
        self.tail = bytearray()
        self.shown = 0

    def add(self, data: bytes) -> None:
        """Take more output."""
        self.tail += data
        del self.tail[:-_KEPT_BYTES]
        *lines, self.rest = (self.rest + data).split(b"\n")
        # A line without end must not grow for ever.
        if len(self.rest) > _KEPT_BYTES:
            lines, self.rest = [*lines, self.rest], b""
        for line in lines[: max(0, _SHOWN_LINES - self.shown)]:
            self.said(printable(line.decode(errors="replace")))
        if self.shown < _SHOWN_LINES <= self.shown + len(lines):
            self.said("… the rest is not shown")
        self.shown += len(lines)

    def end(self) -> None:
        """Pass on what came after the last line's end."""
        if self.rest:
            self.add(b"\n")

    def kept(self) -> str:
        """Return the last of the output, safe to print."""
        text = bytes(self.tail).decode(errors="replace")
        return "\n".join(printable(line) for line in text.splitlines())


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(256 << 10):
            yield data
