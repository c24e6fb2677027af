# SPDX-License-Identifier: Apache-2.0
"""Build a layer in a container: the prototype's way, on a real engine, whatever its storage driver.

The same build.sh makes the same tar as in a build machine. What it changed is found by comparing
the container's files before and after (puzzle.compare), and GNU tar in the container packs it: an
engine's own tars leave access control lists and most attributes out.

A container shares the host's kernel, so this is for puzzles one trusts. It is blocking code: in a
command it runs in the main thread, where Ctrl-C reaches it. The container is written into a record
before it is made, and the reaper removes it whatever becomes of us.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bugbox.errors import BuildFailed, CommandFailed, UserError
from bugbox.events import notice, step
from bugbox.image.docker import Engine, local
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home
from bugbox.puzzle.compare import compare, parse
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.inputs import EPOCH, never, pack, script
from bugbox.puzzle.losses import losses
from bugbox.puzzle.quantity import format_duration
from bugbox.puzzle.text import printable
from bugbox.session.layer import Made, head_of
from bugbox.session.reaper import CONTAINER, container_name, give_back
from bugbox.session.record import claim
from bugbox.storage import file, layer_file

__all__ = ["built_in_container"]

#: A file system of the container's memory: nothing there is on its disk.
_WORK = "/run/bugbox-build"
_SCRIPTS = ("container-prepare.sh", "container-run.sh", "container-archive.sh")
#: What an engine or our import leaves in the root, beside what never is in a layer.
_OURS = (".bugbox", ".dockerenv", "usr/sbin/policy-rc.d")
_STEP_TIMEOUT = 600.0
_MAX_LIST = 256 << 20
_KEPT = 64 << 10


@contextmanager
def built_in_container(
    home: Home, puzzle: Puzzle, image: BuiltImage, *, factor: float = 1.0
) -> Iterator[Made]:
    """Build a puzzle's layer in a container; yield its file. BuildFailed, HostError."""
    if puzzle.manifest.build.network:
        raise UserError(
            f"{puzzle.name} asks for build.network, which containers here never have",
            hint="--builder vm gives it, where the host's owner allows it",
        )
    engine = local()
    engine.require()
    home.prepare()
    file.sweep(home.tmp)
    with (
        step(f"Build puzzle {puzzle.name} in a container"),
        file.workspace(home.tmp, "container") as work,
    ):
        base = engine.ensure_base(home, image)
        tar = work / "puzzle.tar"
        with _container(home, engine, puzzle, base) as name:
            digest, lost = _build(_Guest(engine, name, factor), puzzle, work, tar)
        head = head_of(
            tar,
            name=puzzle.name,
            version=puzzle.manifest.version or "",
            inputs=digest,
            base=image.name,
            base_digest=image.digest,
            disk_bytes=puzzle.manifest.machine.disk,
        )
        layer_file.write(tar, work / "puzzle.tar.zst", head)
        yield Made(file=work / "puzzle.tar.zst", warnings=tuple(lost))


@contextmanager
def _container(home: Home, engine: Engine, puzzle: Puzzle, base: str) -> Iterator[str]:
    title = f"Building {puzzle.name}"
    ledger = claim(
        home,
        f"build-{puzzle.name}",
        title=title,
        driver="docker",
        started=time.time(),
        spec={"engine": engine.env},
    )
    with ExitStack() as undo:
        undo.callback(give_back, ledger)
        ledger.hold(CONTAINER)
        name = container_name(ledger.record.id)
        engine.create(name, base, str(home.root))
        yield name


class _Guest:
    """A container in which a build takes its steps."""

    def __init__(self, engine: Engine, name: str, factor: float) -> None:
        self.engine = engine
        self.name = name
        self.factor = factor

    def put(self, name: str, source: Path) -> None:
        """Write a file into the work folder."""
        with source.open("rb") as data:
            self.run(["/bin/sh", "-c", f'cat >"{_WORK}/$0"', name], source=data)

    def run(self, argv: Sequence[str], *, to: Path | None = None, source: object = None) -> bytes:
        """Run a step of ours; its output goes to the file `to`, or is returned."""
        said = bytearray()
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(to.open("wb")) if to is not None else None
            limit = self.factor * _STEP_TIMEOUT
            lines = stack.enter_context(
                self.engine.reading(self.name, argv, timeout=limit, source=source)  # type: ignore[arg-type]
            )
            while data := lines.read(1 << 20):
                if out is not None:
                    out.write(data)
                elif len(said) > _MAX_LIST:
                    raise BuildFailed("the container has more files than a layer may")
                else:
                    said += data
        return bytes(said)


def _build(guest: _Guest, puzzle: Puzzle, work: Path, tar: Path) -> tuple[str, list[str]]:
    """Run build.sh and write the tar; return the digest of what went in, and what was lost."""
    guest.run(["/bin/mkdir", "-p", _WORK])
    for name in _SCRIPTS:
        path = work / name
        path.write_bytes(script(name))
        guest.put(name, path)
    before = parse(_ours(guest, "container-prepare.sh"))
    inputs = work / "inputs.tar"
    with inputs.open("wb") as packed:
        digest = pack(puzzle, packed)
    with inputs.open("rb") as data:
        extract = ["/bin/tar", "--extract", "--preserve-permissions", "--numeric-owner"]
        guest.run([*extract, "--directory=/puzzle"], source=data)
    _run_build(guest, puzzle)
    changes = compare(
        before, parse(guest.run(["/bin/cat", f"{_WORK}/after"])), (*never(puzzle), *_OURS)
    )
    for name, names in (("whiteouts", changes.whiteouts), ("members", changes.members)):
        path = work / name
        path.write_bytes(_listed(names))
        guest.put(name, path)
    _ours(guest, "container-archive.sh", str(EPOCH), to=tar)
    told = "".join(f"socket\0{name}\0" for name in changes.sockets).encode(errors="replace")
    return digest, losses(told + guest.run(["/bin/cat", f"{_WORK}/lost"]))


def _ours(guest: _Guest, name: str, *args: str, to: Path | None = None) -> bytes:
    try:
        return guest.run(["/bin/bash", f"{_WORK}/{name}", _WORK, *args], to=to)
    except CommandFailed as error:
        message = f"making the layer: {name} failed"
        raise BuildFailed(message, detail=printable(error.stderr)) from error


def _run_build(guest: _Guest, puzzle: Puzzle) -> None:
    argv = ["/bin/bash", f"{_WORK}/container-run.sh", _WORK, str(EPOCH)]
    allowed = puzzle.manifest.build.timeout
    kept = bytearray()
    try:
        with guest.engine.reading(guest.name, argv, timeout=allowed * guest.factor) as lines:
            for line in iter(lambda: lines.readline(_KEPT), b""):
                kept = (kept + line)[-_KEPT:]
                text = printable(line.decode(errors="replace").rstrip("\n"))
                if text.strip():
                    notice(f"  | {text}")
    except CommandFailed as error:
        label = f"{puzzle.name}: build.sh"
        detail = printable(kept.decode(errors="replace"))
        if error.status is None:
            message = f"{label} did not end within {format_duration(allowed)}"
            raise BuildFailed(message, detail=detail) from error
        raise BuildFailed(f"{label} ended with status {error.status}", detail=detail) from error


def _listed(names: Sequence[str]) -> bytes:
    dotted = ("." if name == "." else f"./{name}" for name in names)
    return b"".join(name.encode("utf-8", "surrogateescape") + b"\0" for name in dotted)
