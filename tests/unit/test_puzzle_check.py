# SPDX-License-Identifier: Apache-2.0
"""Checks end in a verdict, whatever the script or the machine does."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from bugbox.errors import GuestError, MachineLost
from bugbox.machine.lifeline.wire import Frame, Tag, Type, encode, pack_fields
from bugbox.puzzle import check as check_module
from bugbox.puzzle.check import LOST, Guest, GuestResult, Report, run_checks
from bugbox.puzzle.definition import Check, Puzzle, load
from bugbox.puzzle.folder import MAX_SCRIPT
from bugbox.puzzle.scaffold import create
from bugbox.puzzle.script import Script, refused_by, with_helpers

SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell[0]), reason=shell[0]))
    for shell in (["busybox", "sh"], ["dash"])
]


@dataclass
class Result:
    status: int | None = 0
    signal: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False


@dataclass
class FakeGuest:
    """Answers each script by its label; `alive` says whether a ping is answered."""

    answers: Mapping[str, Result | Exception]
    alive: bool = True
    calls: list[dict[str, Any]] | None = None

    async def script(
        self,
        text: bytes,
        name: str,
        *,
        args: Sequence[str] = (),
        user: str = "root",
        input: bytes = b"",
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        timeout: float = 30.0,
        limit: int = 1 << 20,
    ) -> GuestResult:
        if self.calls is not None:
            self.calls.append(
                {"name": name, "user": user, "env": env, "timeout": timeout, "text": text}
            )
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ping(self, timeout: float) -> float:
        if not self.alive:
            raise GuestError("no answer")
        return 0.001


class Shell(FakeGuest):
    """Runs scripts on this host, with the shell a guest has: for scripts of this file only."""

    def __init__(self, command: list[str], folder: Path) -> None:
        super().__init__({})
        self.command, self.folder = command, folder

    async def script(self, text: bytes, name: str, **options: Any) -> GuestResult:
        file = self.folder / name
        file.write_bytes(text)
        child = await asyncio.create_subprocess_exec(
            *self.command, str(file), stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=-1
        )
        out, err = await child.communicate()
        return Result(status=child.returncode, stdout=out, stderr=err)


@pytest.fixture
def puzzle(tmp_path: Path) -> Puzzle:
    return load(create(tmp_path, "demo"))


def one(puzzle: Puzzle, text: str = ":", **values: Any) -> Puzzle:
    """Give the puzzle a single check."""
    script = Script(name="checks/a.sh", file=Path("/nowhere/a.sh"), text=text.encode())
    check = Check(id="a", title="It is a", script=script)
    return replace(puzzle, checks=(replace(check, **values),))


def run(puzzle: Puzzle, guest: Guest, **options: Any) -> Report:
    return anyio.run(lambda: run_checks(puzzle, guest, **options))


@pytest.mark.parametrize(
    ("result", "status", "message"),
    [
        (Result(), "passed", ""),
        (Result(stdout=b"all is well\n"), "passed", ""),
        (Result(1, stdout=b"noise\nThe disk is full.\n\n"), "failed", "The disk is full."),
        (Result(1), "failed", "not yet; the check does not say why"),
        (Result(1, stdout=b"\x1b[31mred\x07 \xff\n"), "failed", "\\x1b[31mred\\x07 \\xff"),
        (Result(1, stdout=b"x" * 5000), "failed", "x" * 299 + "…"),
        (
            Result(127, stderr=b"/run/x/a.sh: line 3: jq: not found\n"),
            "failed",
            "the check needs jq, which this machine no longer has: undo or reset",
        ),
        (
            Result(126, stderr=b"a.sh: line 1: /opt/app: Permission denied\n"),
            "failed",
            "the check needs /opt/app, which this machine no longer has: undo or reset",
        ),
        (
            Result(127),
            "failed",
            "the check needs a program, which this machine no longer has: undo or reset",
        ),
        (Result(2), "broken", "the check broke: it ended with status 2"),
        (
            Result(3, stdout=b"Not solved.\n"),
            "broken",
            "the check broke: it ended with status 3; it said: Not solved.",
        ),
        (
            Result(3, stdout=b"Not solved.\n", stderr=b"no such \x1b[2Jthing\n"),
            "broken",
            "the check broke: it ended with status 3; it said: no such \\x1b[2Jthing",
        ),
        (Result(255), "broken", "the check broke: it ended with status 255"),
        (Result(None, signal=9), "broken", "the check was ended by SIGKILL"),
        (Result(None, signal=250), "broken", "the check was ended by signal 250"),
        (
            Result(None, signal=9, stdout=b"Not yet.\n", timed_out=True),
            "broken",
            "the check did not end within 10 s; it said: Not yet.",
        ),
        (
            GuestError("no user nobody2"),
            "broken",
            "the check could not be run: no user nobody2",
        ),
    ],
)
def test_the_contract_of_the_exit_status(
    puzzle: Puzzle, result: Result | Exception, status: str, message: str
) -> None:
    outcome = run(one(puzzle), FakeGuest({"a.sh": result})).checks[0]
    assert (outcome.status, outcome.message) == (status, message)


def test_a_failure_without_a_sentence_is_marked(puzzle: Puzzle) -> None:
    assert run(one(puzzle), FakeGuest({"a.sh": Result(1)})).checks[0].no_sentence
    spoken = run(one(puzzle), FakeGuest({"a.sh": Result(1, stdout=b"No.")})).checks[0]
    assert not spoken.no_sentence


@pytest.mark.parametrize(
    "guest",
    [
        FakeGuest({"readable.sh": MachineLost("gone")}),
        FakeGuest({"readable.sh": GuestError("nothing")}, alive=False),
        FakeGuest({"readable.sh": Result(None, timed_out=True)}, alive=False),
    ],
)
def test_a_machine_that_no_longer_answers_is_not_solved(puzzle: Puzzle, guest: FakeGuest) -> None:
    report = run(puzzle, guest)
    assert report.solved is False and report.exit_status == 1
    assert [each.status for each in report.checks] == ["failed", "skipped"]
    assert {each.message for each in report.checks} == {LOST}


def test_a_guest_that_hangs_is_given_up(puzzle: Puzzle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(FakeGuest):
        async def script(self, *args: Any, **options: Any) -> GuestResult:
            await anyio.sleep_forever()
            raise AssertionError

        async def ping(self, timeout: float) -> float:
            await anyio.sleep_forever()
            raise AssertionError

    monkeypatch.setattr(check_module, "_GRACE_S", 0.05)
    monkeypatch.setattr(check_module, "_PING_S", 0.05)
    report = run(one(puzzle, timeout_s=0.05), Hanging({}))
    assert report.checks[0].message == LOST
    assert report.checks[0].seconds >= 0.1


def test_needs_and_clones(puzzle: Puzzle) -> None:
    first = one(puzzle).checks[0]
    checks = (
        first,
        replace(first, id="b", title="It is b", needs=("a",), where="clone"),
        replace(first, id="c", needs=("b",)),
    )
    report = run(replace(puzzle, checks=checks), FakeGuest({"a.sh": Result()}))
    assert [each.status for each in report.checks] == ["passed", "skipped", "skipped"]
    assert report.checks[1].message.startswith("it runs in a clone of the machine")
    assert report.checks[2].message == "first: It is b"
    assert (report.solved, report.exit_status) == (None, 4)
    report = run(replace(puzzle, checks=checks), FakeGuest({"a.sh": Result(1)}))
    assert [each.message for each in report.checks[1:]] == ["first: It is a", "first: It is b"]
    assert (report.solved, report.exit_status) == (False, 1)


@pytest.mark.parametrize(
    ("statuses", "solved", "status"),
    [
        ((0, 0), True, 0),
        ((0, 1), False, 1),
        ((3, 1), False, 1),
        ((0, 3), None, 4),
        ((3, 0), None, 4),
    ],
)
def test_solved_and_exit_status(
    puzzle: Puzzle, statuses: tuple[int, int], solved: bool | None, status: int
) -> None:
    first, second = statuses
    checks = tuple(replace(check, needs=()) for check in puzzle.checks)
    guest = FakeGuest({"readable.sh": Result(first), "private.sh": Result(second)})
    report = run(replace(puzzle, checks=checks), guest)
    assert (report.solved, report.exit_status) == (solved, status)
    shape = report.as_json()
    assert list(shape) == ["solved", "checks"] and shape["solved"] is solved
    assert list(shape["checks"][0]) == ["id", "title", "status", "message", "seconds"]


def test_what_the_guest_is_asked(puzzle: Puzzle) -> None:
    guest = FakeGuest({"a.sh": Result()}, calls=[])
    checked = one(puzzle, user="learner", timeout_s=5.0)
    run(checked, guest, env={"PUZZLE_X": "1"}, factor=3.0)
    assert guest.calls
    call = guest.calls[0]
    assert (call["user"], call["env"], call["timeout"]) == ("learner", {"PUZZLE_X": "1"}, 15.0)
    assert b"fail()" in call["text"]


def shell(command: list[str], folder: Path, puzzle: Puzzle, text: str) -> tuple[str, str, str]:
    outcome = run(one(puzzle, "#!/bin/sh\n" + text), Shell(command, folder)).checks[0]
    return outcome.status, outcome.message, outcome.detail


@pytest.mark.parametrize("command", SHELLS)
@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("true", "passed", ""),
        ('fail "It is" broken', "failed", "It is broken"),
        ("fail '%s \\n'", "failed", "%s \\n"),
        ("nosuchprogram", "failed", "the check needs nosuchprogram, which this machine no"),
        ("if", "broken", "the check broke: it ended with status 2"),
        ("within 9 true && echo yes; exit 1", "failed", "yes"),
        ('within 9 sh -c "exit 5"; fail "$?"', "failed", "5"),
        ("within 1 sleep 43; fail $?", "failed", "124"),
        ("slow() { sleep 44; }; within 1 slow; fail $?", "failed", "124"),
        ("within 1 sh -c 'sleep 45; true'; fail $?", "failed", "124"),
        ("echo words | within 9 cat; exit 1", "failed", "words"),
        ("eventually 1 false; fail $?", "failed", "1"),
        ("eventually 1 sleep 46; fail $?", "failed", "1"),
        (
            "n=$0.n; again() { echo >>$n; [ $(wc -l <$n) -ge 3 ]; }; eventually 9 again",
            "passed",
            "",
        ),
    ],
)
def test_the_helpers(
    command: list[str], tmp_path: Path, puzzle: Puzzle, text: str, status: str, message: str
) -> None:
    found = shell(command, tmp_path, puzzle, text)
    assert found[0] == status
    assert found[1].startswith(message)
    assert not left_behind()


def left_behind() -> list[str]:
    """The sleeps of the cases above, if one is still there."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"sleep") and words[1] in (b"43", b"44", b"45", b"46"):
            commands.append(b" ".join(words).decode())
    return commands


@pytest.mark.parametrize("command", SHELLS)
def test_lines_are_counted_as_in_the_file(
    command: list[str], tmp_path: Path, puzzle: Puzzle
) -> None:
    status, _, detail = shell(command, tmp_path, puzzle, "\n\nnosuchprogram\nexit 9")
    assert status == "broken"
    assert "4: nosuchprogram: not found" in detail


def test_a_first_line_that_is_code_is_kept() -> None:
    assert with_helpers(b"true\nx").endswith(b" true\nx")
    assert with_helpers(b"#!/bin/sh -e\nx").endswith(b" \nx")
    assert with_helpers(b"x").count(b"\n") == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"#!/bin/sh\n# refused by: space\n", ("space", 2)),
        (b"#!/bin/sh\n\n#Refused by:  space  \n", ("space", 3)),
        (b"#!/bin/sh\n" + b"\n" * 20 + b"# refused by: space\n", None),
        (b"#!/bin/sh\necho refused by: x\n", None),
    ],
)
def test_refused_by(text: bytes, found: tuple[str, int] | None) -> None:
    assert refused_by(Script(name="w.sh", file=Path("w.sh"), text=text)) == found


def test_a_cancelled_check_is_no_verdict(puzzle: Puzzle) -> None:
    class Slow(FakeGuest):
        async def script(self, *args: Any, **options: Any) -> GuestResult:
            await anyio.sleep(60)
            return Result()

    async def cancelled() -> bool:
        with anyio.move_on_after(0.05) as scope:
            await run_checks(one(puzzle), Slow({}))
        return scope.cancelled_caught

    wanted: Callable[[], Awaitable[bool]] = cancelled
    assert anyio.run(wanted)


def test_the_largest_check_fits_into_one_request() -> None:
    """With its helpers, a long name, and as much of an environment as there is room for."""
    text = with_helpers(b"#!/bin/sh\n" + b"#" * (MAX_SCRIPT - 10))
    fields = [(Tag.SCRIPT, text), (Tag.NAME, "n" * 100), (Tag.ENV, "NAME=" + "v" * 8000)]
    assert encode(Frame(Type.OPEN, 0, 1, pack_fields(fields)))


def test_what_is_looked_for_in_a_guests_complaint_is_bounded() -> None:
    assert check_module._missing(b"x" * 100 + b"y" * 200 + b": not found\n").startswith("y")
