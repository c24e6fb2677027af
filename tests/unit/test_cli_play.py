# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811
"""`play`: the way in, the solved screen, the ways out; and its demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_world import STORY, FakeKeeper, Typist, bugbox, home, keeper, report  # noqa: F401
from test_cli_terminal import Guest

from bugbox.cli.demo import shown_commands
from bugbox.keeper import protocol
from bugbox.paths import Home
from bugbox.puzzle.scaffold import create

ROW = {"id": "read-me-3f9k", "puzzle": "read-me", "state": "ready"}
SOLVED = STORY | {
    "solved": True,
    "solved_after_s": 125.0,
    "debrief": "It was an **ACL**.",
    "next": ["deleted-but-open"],
}


class World:
    """A keeper with one puzzle's session."""

    def __init__(self, keeper: FakeKeeper) -> None:
        self.keeper = keeper
        self.guest = Guest(keeper)
        self.running = False
        self.story = dict(STORY)
        keeper.verbs |= {
            "ps": lambda talk, _: talk.result([ROW] if self.running else []),
            "start": self._start,
            "stop": self._stop,
            "story": lambda talk, _: talk.result(self.story),
            "reset": lambda talk, _: talk.result({"id": ROW["id"], "state": "ready"}),
            "check": lambda talk, _: talk.result(report(True, "passed")),
        }

    def _start(self, talk: Any, args: dict[str, Any]) -> None:
        self.running = True
        talk.result({"id": ROW["id"], "state": "ready", "timings_ms": {"total": 5000}})

    def _stop(self, talk: Any, args: dict[str, Any]) -> None:
        self.running = False
        talk.result({"stopped": [ROW["id"]]})

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.keeper.asked]


@pytest.fixture
def world(keeper: FakeKeeper) -> World:
    return World(keeper)


def test_the_first_run_says_what_it_will_make_and_tells_the_story(world: World) -> None:
    with Typist("play", "read-me") as person:
        before = person.until(b"guest$ ").decode()
        assert "To be made first" in before and "MiB to download" in before
        assert "two weeks of holiday" in before and "Ctrl-] opens the menu" in before
        assert world.verbs[:2] == ["ps", "start"]


def test_what_is_better_solved_first_is_said_until_it_is(
    world: World, home: Home, tmp_path: Path
) -> None:
    folder = create(tmp_path, "mine")
    with (folder / "puzzle.yaml").open("a") as manifest:
        manifest.write("requires: [read-me, deleted-but-open]\n")
    line = json.dumps({"event": "solved", "puzzle": "read-me", "gave_up": False})
    home.prepare()
    home.progress.write_text(line + "\n")
    with Typist("play", str(folder)) as person:
        before = person.until(b"guest$ ").decode()
        assert "Better first: bugbox play deleted-but-open" in before
        assert "bugbox play read-me" not in before


def test_points_are_told_when_it_is_solved(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.story = SOLVED | {"points": 85}
        person.type(b"\x1dc")
        screen = person.until(b"Stay and look around, or leave?").decode()
        assert "2 checks: 85 points." in screen
        person.type(b"l\r")
        person.rest()


def test_solving_it_and_leaving(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.story = SOLVED
        person.type(b"\x1dc")
        screen = person.until(b"Stay and look around, or leave?").decode()
        assert "2 min 5 s, 1 of 3 hints, 2 checks." in screen
        assert "It was an" in screen and "Next: bugbox play deleted-but-open" in screen
        person.type(b"l\r")
        assert b"is thrown away" in person.rest()
        assert person.status == 0 and person.restored and not world.running


def test_solving_it_and_keeping_the_machine(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.story = SOLVED
        person.type(b"\x1dc")
        person.until(b"[l] leave and throw it away (Enter: s)")
        person.type(b"k\r")
        assert b"`bugbox play read-me` or `bugbox shell read-me-3f9k` goes back" in person.rest()
        assert person.status == 0 and person.restored and world.running


def test_solving_it_and_staying(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.story = SOLVED
        person.type(b"\x1dc")
        person.until(b"or leave?")
        person.type(b"\r")
        person.until(b"(Enter: s)")
        person.type(b"y")
        person.until(b"<y>")
        assert person.raw and world.running


@pytest.mark.parametrize(
    ("answer", "verb", "runs"),
    [(b"\r", None, True), (b"r\r", "reset", True), (b"t\r", "stop", False)],
)
def test_leaving_unsolved_asks(world: World, answer: bytes, verb: str | None, runs: bool) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        person.type(b"\x1dq")
        person.until(b"(Enter: k)")
        person.type(answer)
        person.rest()
        assert person.status == 0 and person.restored
        assert world.running is runs
        assert (b"`bugbox play read-me`" in person.seen) is runs
        assert verb is None or verb in world.verbs


def test_logging_out_asks_too(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.guest.ends(code=0)
        person.until(b"[k] keep, [r] reset, [t] throw away (Enter: k)")
        person.type(b"\x03")  # Ctrl-C is no answer: the default
        person.rest()
        assert world.running


def test_solved_in_the_guest_is_seen_at_the_end(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        world.story = SOLVED
        world.guest.ends(code=0)
        person.until(b"or leave?")
        person.type(b"l\r")
        person.rest()
        assert not world.running


def test_a_lost_terminal_keeps_the_session(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        person.kill(1)
        assert person.status == 0 and world.running and "stop" not in world.verbs


def test_detaching_keeps_it_without_a_question(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        person.type(b"\x1dd")
        assert b"goes back" in person.rest()
        assert world.running and person.status == 0


@pytest.mark.parametrize(
    ("answer", "asked"),
    [(b"\r", "terminal"), (b"g\r", "terminal"), (b"r\r", "reset"), (b"n\r", "start")],
)
def test_it_offers_to_go_on(world: World, answer: bytes, asked: str) -> None:
    world.running = True
    with Typist("play", "read-me") as person:
        person.until(b"is there already, ready")
        person.until(b"(Enter: g)")
        person.type(answer)
        person.until(b"guest$ ")
        assert asked in world.verbs
        assert ("start" in world.verbs) is (asked == "start")


def test_what_is_typed_at_a_question_can_be_a_word_or_nonsense(world: World) -> None:
    with Typist("play", "read-me") as person:
        person.until(b"guest$ ")
        person.type(b"\x1dq")
        person.until(b"(Enter: k)")
        person.type(b"what?\r")
        person.until(b'"what?" is none of these')
        person.until(b"(Enter: k)")
        person.type(b"throw\r")
        person.rest()
        assert not world.running


# The demo.


def demo_world(
    keeper: FakeKeeper, *, before: Any, after: Any, status: int = 0
) -> list[tuple[Any, ...]]:
    ran: list[tuple[Any, ...]] = []
    answers = [before, after]

    def exec(talk: Any, args: dict[str, Any]) -> None:
        ran.append(tuple(args["argv"]))
        talk.stream()
        talk.frame(protocol.STDOUT, b"Permission denied \x1b[2J\n")
        talk.frame(protocol.EXIT, {"code": status})

    def started(talk: Any, _: Any) -> None:
        talk.result({"id": ROW["id"], "state": "ready", "timings_ms": {"total": 5000}})

    keeper.verbs |= {
        "start": started,
        "exec": exec,
        "terminal": exec,
        "solution": lambda talk, _: talk.result({}),
        "check": lambda talk, _: talk.result(answers.pop(0)),
        "stop": lambda talk, _: talk.result({"stopped": [ROW["id"]]}),
    }
    return ran


REFUSED = report(False, "failed", message="You are still turned away.")
FINE = report(True, "passed")


def test_the_demo_tells_the_whole_story(keeper: FakeKeeper) -> None:
    ran = demo_world(keeper, before=REFUSED, after=FINE)
    done = bugbox("play", "read-me", "--demo")
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode()
    parts = ["holiday", "learner$ cat", "Permission denied \\x1b[2J", "still turned away",
             "setfacl", "Solved.", "went as told"]  # fmt: skip
    assert [p for p in parts if p not in out] == []
    assert sorted(parts, key=out.index) == parts
    assert ran[0][:2] == ("/bin/bash", "-lc") and "letter.txt" in ran[0][2]
    assert ran[-1][:2] == ("/bin/sh", "-c") and "setfacl" in ran[-1][2]
    assert keeper.asked[-1] == ("stop", {"ids": ["read-me-3f9k"]})
    # Looking on is not solving.
    assert ("solution", {"id": "read-me-3f9k", "give_up": True}) in keeper.asked


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (FINE, FINE, 0),
        (report(False, "failed"), FINE, 0),
        (report(None, "broken"), FINE, 0),
        (REFUSED, REFUSED, 0),
        (REFUSED, report(None, "broken"), 0),
        (REFUSED, FINE, 1),
    ],
)
def test_a_demo_that_does_not_go_as_told_fails(
    keeper: FakeKeeper, before: Any, after: Any, status: int
) -> None:
    demo_world(keeper, before=before, after=after, status=status)
    done = bugbox("play", "read-me", "--demo", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["passed"] is False
    assert keeper.asked[-1][0] == "stop"


def test_a_demo_that_breaks_off_stops_its_machine(keeper: FakeKeeper) -> None:
    demo_world(keeper, before=REFUSED, after=FINE)
    keeper.verbs["check"] = lambda talk, _: talk.error("MachineLost", "it died", 1)
    assert bugbox("play", "read-me", "--demo").returncode == 1
    assert keeper.asked[-1][0] == "stop"


def test_the_commands_of_a_story() -> None:
    text = "$ not this\n```\n$ df -h\nout\n  $ nor this\n$ \n```\n~~~\n$ ls\n~~~\n"
    assert [*shown_commands(text)] == ["df -h", "ls"]


def test_every_shipped_story_shows_its_symptom() -> None:
    for folder in (Path(__file__).parents[2] / "puzzles").iterdir():
        assert [*shown_commands((folder / "description.md").read_text())], folder.name
