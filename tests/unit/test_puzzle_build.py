# SPDX-License-Identifier: Apache-2.0
"""What reaches the build machine, what names a layer, and how a build that fails is told."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from bugbox.errors import BuildFailed, DefinitionError
from bugbox.puzzle import inputs as inputs_module
from bugbox.puzzle.build import build
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.inputs import EPOCH, SCRIPTS, layer_key, pack

MANIFEST = """schema: 1
name: small
title: Small
summary: A small one.
checks: [{id: a, title: A, run: checks/a.sh}]
build: {timeout: 1s}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "small"
    (root / "checks").mkdir(parents=True)
    (root / "files" / "deep").mkdir(parents=True)
    (root / "puzzle.yaml").write_text(MANIFEST)
    (root / "description.md").write_text("It is broken.\n")
    for name, text in (("checks/a.sh", "exit 1\n"), ("build.sh", "#!/bin/sh\necho hello\n")):
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "files" / "data").write_bytes(b"data")
    (root / "files" / "tool").write_bytes(b"tool")
    (root / "files" / "tool").chmod(0o710)
    (root / "files" / "deep" / "link").symlink_to("../data")
    return root


def packed(puzzle: Puzzle) -> tuple[str, bytes]:
    out = io.BytesIO()
    return pack(puzzle, out), out.getvalue()


def test_the_packed_folder_depends_on_nothing_but_contents_and_run_bits(folder: Path) -> None:
    digest, data = packed(load(folder))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
    assert list(members) == [
        "build.sh",
        "files",
        "files/data",
        "files/deep",
        "files/deep/link",
        "files/tool",
    ]
    assert members["files/data"].mode == 0o644
    assert members["files/tool"].mode == 0o755
    assert members["files/deep/link"].linkname == "../data"
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members.values()} == {(0, 0, EPOCH, "")}

    (folder / "files" / "data").chmod(0o600)
    os.utime(folder / "files" / "data", (1, 1))
    assert packed(load(folder)) == (digest, data)
    assert pack(load(folder), None) == digest


def _touch_build(root: Path) -> None:
    (root / "build.sh").write_text("#!/bin/sh\necho bye\n")


def _touch_file(root: Path) -> None:
    (root / "files" / "data").write_bytes(b"Data")


def _rename_file(root: Path) -> None:
    (root / "files" / "data").rename(root / "files" / "date")
    (root / "files" / "deep" / "link").unlink()


def _run_bit(root: Path) -> None:
    (root / "files" / "data").chmod(0o755)


def _link(root: Path) -> None:
    (root / "files" / "deep" / "link").unlink()
    (root / "files" / "deep" / "link").symlink_to("../tool")


def _disk(root: Path) -> None:
    with (root / "puzzle.yaml").open("a") as manifest:
        manifest.write("machine: {disk: 3GiB}\n")


@pytest.mark.parametrize(
    "change", [_touch_build, _touch_file, _rename_file, _run_bit, _link, _disk]
)
def test_whatever_shapes_the_layer_is_in_its_key(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before = layer_key(load(folder), "base")
    change(folder)
    assert layer_key(load(folder), "base") != before


def test_another_base_or_builder_makes_another_layer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    puzzle = load(folder)
    before = layer_key(puzzle, "base")
    assert layer_key(puzzle, "other base") != before
    monkeypatch.setattr(inputs_module, "script", lambda name: b"another script")
    assert layer_key(puzzle, "base") != before


def test_texts_and_checks_are_not_in_the_key(folder: Path) -> None:
    before = layer_key(load(folder), "base")
    (folder / "description.md").write_text("It is broken in another way.\n")
    (folder / "checks" / "a.sh").write_text("exit 0\n")
    (folder / "solve.sh").write_text("#!/bin/sh\n")
    (folder / "solve.sh").chmod(0o755)
    assert layer_key(load(folder), "base") == before


def test_a_file_that_became_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    puzzle = load(folder)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "files" / "data").unlink()
    (folder / "files" / "data").symlink_to(secret)
    assert b"secret" not in packed(puzzle)[1].replace(str(secret).encode(), b"")


def test_a_fifo_is_not_waited_for(folder: Path) -> None:
    puzzle = load(folder)
    os.mkfifo(folder / "files" / "pipe")
    with pytest.raises(DefinitionError, match="neither a file nor a folder"):
        pack(puzzle, None)


def test_files_too_large_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs_module, "_MAX_INPUTS", 64 << 10)
    (folder / "files" / "data").write_bytes(bytes(100_000))
    with pytest.raises(DefinitionError, match="larger than"):
        pack(load(folder), None)


class End:
    def __init__(self, code: int) -> None:
        self.code = code


class Process:
    """A command of the fake guest: what it prints, then its status, or no end at all."""

    def __init__(self, output: Sequence[tuple[int, bytes]], code: int | None) -> None:
        self.output = list(output)
        self.code = code
        self.closed = False

    async def send_eof(self) -> None:
        pass

    async def receive(self) -> tuple[int, bytes] | None:
        if self.output:
            return self.output.pop(0)
        if self.code is None:
            await asyncio.sleep(3600)
        return None

    async def status(self) -> End:
        assert self.code is not None
        return End(self.code)

    async def close(self) -> None:
        self.closed = True


class FakeGuest:
    """Answers each step as a test says; what it says nothing about goes well."""

    def __init__(self, **steps: tuple[Sequence[tuple[int, bytes]], int | None]) -> None:
        self.steps = steps
        self.ran: list[str] = []
        self.files: dict[str, bytes] = {}
        self.processes: list[Process] = []

    async def command(self, argv: Sequence[str | bytes]) -> Process:
        name = Path(str(argv[1])).stem if argv[0] == "/bin/bash" else Path(str(argv[0])).name
        self.ran.append(name)
        self.processes.append(Process(*self.steps.get(name, ((), 0))))
        return self.processes[-1]

    async def put(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        *,
        size: int | None = None,
        mode: int = 0o644,
        parents: bool = False,
    ) -> None:
        if not isinstance(data, bytes):
            data = b"".join([piece async for piece in data])
        assert size in (None, len(data))
        self.files[path] = data


def run(guest: FakeGuest, folder: Path) -> tuple[bytes, list[str]]:
    """Build with the fake guest: the tar that came out, and the lines that were said."""
    puzzle = load(folder)
    inputs = folder.parent / "inputs.tar"
    with inputs.open("wb") as out:
        pack(puzzle, out)
    tar, said = bytearray(), []
    work: Awaitable[None] = build(guest, puzzle, inputs, tar.extend, said=said.append, factor=0.2)
    asyncio.run(work)  # type: ignore[arg-type]
    return bytes(tar), said


def failed(guest: FakeGuest, folder: Path) -> BuildFailed:
    with pytest.raises(BuildFailed) as caught:
        run(guest, folder)
    assert all(process.closed for process in guest.processes if process.code is None)
    return caught.value


def test_a_build_takes_every_step_in_order(folder: Path) -> None:
    guest = FakeGuest(
        run=([(1, b"one\ntw"), (2, b"o\n"), (1, b"rest \x1b[2J")], 0),
        archive=([(1, b"the "), (1, b"tar")], 0),
    )
    tar, said = run(guest, folder)
    assert guest.ran == ["prepare", "run", "collect", "archive", "apply"]
    assert tar == b"the tar"
    assert said == ["one", "two", "rest \\x1b[2J"]
    names = {Path(path).name for path in guest.files}
    assert names == {*SCRIPTS, "inputs.tar"}
    assert guest.files["/run/bugbox-build/scratch/inputs.tar"] == packed(load(folder))[1]


def test_a_failing_script_is_told_with_its_output(folder: Path) -> None:
    guest = FakeGuest(run=([(2, b"no such package\n")], 3), stat=([(1, b"9999 4096\n")], 0))
    error = failed(guest, folder)
    assert error.message == "small: build.sh ended with status 3"
    assert error.detail == "no such package"
    assert "collect" not in guest.ran


def test_a_script_without_end_is_ended(folder: Path) -> None:
    guest = FakeGuest(run=([(1, b"waiting\n")], None))
    error = failed(guest, folder)
    assert error.message == "small: build.sh did not end within 1s"
    assert error.detail == "waiting"
    assert error.hint is not None and "build.timeout" in error.hint


def test_a_full_disk_is_called_by_its_name(folder: Path) -> None:
    guest = FakeGuest(run=([(2, b"write error\n")], 1), stat=([(1, b"3 4096\n")], 0))
    error = failed(guest, folder)
    assert error.message == "small: build.sh filled the disk of 2048 MiB"
    assert error.hint is not None and "machine.disk" in error.hint


@pytest.mark.parametrize("answer", [b"", b"no numbers here\n", b"-1 x\n", b"9" * 5000])
def test_nonsense_about_free_space_is_not_believed(folder: Path, answer: bytes) -> None:
    guest = FakeGuest(run=([], 1), stat=([(1, answer)], 0))
    assert failed(guest, folder).message == "small: build.sh ended with status 1"


def test_endless_output_is_bounded(folder: Path) -> None:
    flood = [(1, b"x" * 16384)] * 40
    error = failed(FakeGuest(run=(flood, 1)), folder)
    assert error.detail is not None and len(error.detail) <= 64 << 10


def test_of_endless_lines_the_first_are_shown_and_the_last_kept(folder: Path) -> None:
    flood = [(1, b"".join(b"line %d\n" % (n * 1000 + m) for m in range(1000))) for n in range(9)]
    said: list[str] = []
    guest = FakeGuest(run=(flood, 1))
    puzzle = load(folder)
    (folder.parent / "inputs.tar").write_bytes(b"")
    with pytest.raises(BuildFailed) as caught:
        asyncio.run(build(guest, puzzle, folder.parent / "inputs.tar", print, said=said.append))
    assert said[4999:] == ["line 4999", "… the rest is not shown"]
    assert caught.value.detail is not None and caught.value.detail.endswith("\nline 8999")


@pytest.mark.parametrize("step", ["prepare", "collect", "archive", "apply"])
def test_a_step_of_ours_that_fails_says_why(folder: Path, step: str) -> None:
    guest = FakeGuest(**{step: ([(2, b"the reason\n")], 1)})
    error = failed(guest, folder)
    assert f"{step}.sh ended with status 1" in error.message
    assert error.detail is not None and "the reason" in error.detail
    assert guest.ran[-1] == step


def test_a_layer_that_does_not_fit_says_what_helps(folder: Path) -> None:
    guest = FakeGuest(apply=([(2, b"tar: x: No space left on device\n")], 2))
    error = failed(guest, folder)
    assert error.hint is not None and "machine.disk" in error.hint
