# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811
"""What commands print and how they end, against a keeper that says what the test wants."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_world import STORY, FakeKeeper, Typist, bugbox, home, keeper, report  # noqa: F401

from bugbox.cli import prepare as cli_prepare
from bugbox.cli import reset as cli_reset
from bugbox.cli import start as cli_start
from bugbox.cli.events import shown
from bugbox.cli.outcome import tell
from bugbox.errors import BuildFailed, NotBuilt
from bugbox.events import notice, step
from bugbox.paths import Home, shipped_puzzles

STARTED = {
    "id": "read-me-3f9k",
    "state": "ready",
    "clone": False,
    "timings_ms": {"total": 6200, "kernel": 900},
}


def test_start_prints_one_document(keeper: FakeKeeper) -> None:
    def start(talk: Any, args: dict[str, Any]) -> None:
        talk.event(type="Notice", text="no KVM here: software emulation")
        talk.event(type="StepStarted", title="Boot")
        talk.event(type="StepFinished", title="Boot", seconds=1.0, error="")
        talk.result(STARTED)

    keeper.verbs["start"] = start
    done = bugbox("start", "read-me", "--cold", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == STARTED
    # Notices are told; progress is not, where no terminal is.
    assert done.stderr.decode() == "no KVM here: software emulation\n"
    (verb, args) = keeper.asked[0]
    assert verb == "start" and args["cold"] is True and args["puzzle"].endswith("/puzzles/read-me")


def test_start_draws_where_its_time_went(keeper: FakeKeeper, tmp_path: Path) -> None:
    spans = [{"name": "vmm: load", "begin": 10.0, "end": 10.25}]
    keeper.verbs["start"] = lambda talk, _: talk.result(STARTED | {"clone": True, "trace": spans})
    picture = tmp_path / "start.svg"
    done = bugbox("start", "read-me", "--json", "--trace", str(picture))
    assert json.loads(done.stdout) == STARTED | {"clone": True}
    assert keeper.asked[0][1]["trace"] is True
    told = picture.read_text()
    assert "read-me-3f9k, a clone" in told and "vmm: load" in told and "250.0 ms" in told
    assert "command: until it asks" in told


def test_start_for_people(keeper: FakeKeeper) -> None:
    keeper.verbs["start"] = lambda talk, _: talk.result(STARTED)
    done = bugbox("start", "read-me")
    assert done.stdout.decode() == (
        "read-me-3f9k is ready after 6.2 s\n  bugbox shell read-me-3f9k\n"
    )
    assert done.stderr == b""


def test_start_without_a_name_means_the_folder(keeper: FakeKeeper, tmp_path: Path) -> None:
    keeper.verbs["start"] = lambda talk, _: talk.result(STARTED)
    folder = tmp_path / "mine"
    folder.mkdir()
    done = bugbox("start", cwd=folder)
    assert done.returncode == 2 and b"no puzzle.yaml" in done.stderr
    (folder / "puzzle.yaml").write_text("schema: 1\n")
    for words, cwd in ((["start"], folder), (["start", "./mine"], tmp_path)):
        assert bugbox(*words, cwd=cwd).returncode == 0
        assert keeper.asked[-1][1]["puzzle"] == str(folder)


def test_a_bare_machine(keeper: FakeKeeper) -> None:
    keeper.verbs["start"] = lambda talk, _: talk.result(STARTED)
    assert bugbox("start", "--image", "debian-12").returncode == 0
    assert keeper.asked[-1][1]["image"] == "debian-12"
    assert bugbox("start", "read-me", "--image", "debian-12").returncode == 2


def test_no_build_refuses_to_build(keeper: FakeKeeper) -> None:
    keeper.verbs["start"] = lambda talk, _: talk.error("NotBuilt", "read-me is not built", 1)
    done = bugbox("start", "read-me", "--no-build")
    assert done.returncode == 1
    assert b"read-me is not built" in done.stderr and b"bugbox build" in done.stderr
    assert [verb for verb, _ in keeper.asked] == ["start"]


@pytest.mark.parametrize(
    ("kind", "exit"), [("UserError", 2), ("HostError", 3), ("BootFailed", 1), ("BugboxError", 70)]
)
def test_the_keepers_errors_keep_their_status(keeper: FakeKeeper, kind: str, exit: int) -> None:
    keeper.verbs["start"] = lambda talk, _: talk.error(kind, "so it is", exit, hint="do that")
    done = bugbox("start", "read-me", "--json")
    assert done.returncode == exit
    assert json.loads(done.stdout)["error"]["message"] == "so it is"
    assert b"bugbox: so it is\n  hint: do that\n" in done.stderr


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (report(True, "passed"), 0, "Solved."),
        (report(False, "passed", "failed"), 1, "Not solved yet: 1 of 2"),
        (report(None, "passed", "broken"), 4, "Undecided"),
        (report(None, "skipped"), 4, "Undecided"),
    ],
)
def test_check(keeper: FakeKeeper, answer: dict[str, Any], status: int, told: str) -> None:
    keeper.verbs["check"] = lambda talk, _: talk.result(answer)
    done = bugbox("check")
    assert done.returncode == status and told in done.stdout.decode()
    done = bugbox("check", "--json")
    assert done.returncode == status and json.loads(done.stdout) == answer


def test_what_a_guest_says_cannot_drive_the_terminal(keeper: FakeKeeper) -> None:
    evil = report(False, "failed", message="\x1b[2J\x1b]0;owned\x07 \u202eabc \x9b31m")
    keeper.verbs["check"] = lambda talk, _: talk.result(evil)
    out = bugbox("check").stdout.decode()
    assert "\\x1b[2J" in out
    assert not {c for c in out if c != "\n" and not c.isprintable()}


def test_ps(keeper: FakeKeeper, home: Home) -> None:
    row = {
        "id": "read-me-3f9k",
        "puzzle": "read-me",
        "state": "ready",
        "started": "2026-01-02T03:04:05Z",
        "driver": "qemu",
        "disk": "qcow2",
        "memory_mib": 256,
        "reason": "",
    }
    keeper.verbs["ps"] = lambda talk, _: talk.result([row])
    shown = json.loads(bugbox("ps", "--json").stdout)
    contract = ["id", "puzzle", "state", "started", "driver", "disk", "memory_mib"]
    assert shown == [{key: row[key] for key in contract}]
    head, line = bugbox("ps").stdout.decode().splitlines()
    assert head.split() == ["ID", "PUZZLE", "STATE", "UP", "DRIVER", "DISK", "MEMORY"]
    assert line.split()[:3] == ["read-me-3f9k", "read-me", "ready"]


def test_ps_and_stop_all_start_no_keeper_where_nothing_is(home: Home) -> None:
    assert json.loads(bugbox("ps", "--json").stdout) == []
    assert json.loads(bugbox("stop", "--all", "--json").stdout) == {"stopped": []}
    assert not home.root.exists()


def test_stop(keeper: FakeKeeper) -> None:
    keeper.verbs["stop"] = lambda talk, args: talk.result({"stopped": args.get("ids", ["all"])})
    assert json.loads(bugbox("stop", "a", "b", "--json").stdout) == {"stopped": ["a", "b"]}
    assert bugbox("stop", "--all").stdout == b"all stopped\n"
    assert bugbox("stop", "a", "--all").returncode == 2


def test_stop_all_asks_on_a_terminal(keeper: FakeKeeper) -> None:
    keeper.verbs["ps"] = lambda talk, _: talk.result([{"id": "a-2222"}, {"id": "b-3333"}])
    keeper.verbs["stop"] = lambda talk, _: talk.result({"stopped": ["a-2222", "b-3333"]})
    for answer, status in ((b"n\r", 1), (b"yes\r", 0)):
        with Typist("stop", "--all") as person:
            assert b"stop 2 sessions: a-2222, b-3333" in person.until(b"go on? [y/N] ")
            person.type(answer)
            assert (b"b-3333 stopped" in person.rest()) is (status == 0)
            assert person.status == status


def test_stop_all_without_anybody_to_ask(keeper: FakeKeeper) -> None:
    rows = [{"id": "a-2222"}, {"id": "b-3333"}, {"id": "c-4444", "making": True}]
    keeper.verbs["ps"] = lambda talk, _: talk.result(rows)
    keeper.verbs["stop"] = lambda talk, _: talk.result({"stopped": ["a-2222", "b-3333"]})
    done = bugbox("stop", "--all")
    assert done.returncode == 2 and b"stop 2 sessions: a-2222, b-3333" in done.stderr
    assert b"--yes" in done.stderr and "stop" not in [verb for verb, _ in keeper.asked]
    assert bugbox("stop", "--all", "--yes").stdout == b"a-2222 stopped\nb-3333 stopped\n"


def test_reset_asks_on_a_terminal_only(keeper: FakeKeeper) -> None:
    keeper.verbs["debug"] = lambda talk, _: talk.result({"record": {"id": "read-me-3f9k"}})
    keeper.verbs["reset"] = lambda talk, args: talk.result({"id": args["id"], "state": "ready"})
    for answer, status in ((b"y\r", 0), (b"\r", 1), (b"\x04", 1)):
        with Typist("reset", "read-me") as person:
            question = person.until(b"go on? [y/N] ")
            assert b"read-me-3f9k" in question and b"thrown away" in question
            person.type(answer)
            assert (b"is ready" in person.rest()) is (status == 0)
            assert person.status == status
    assert [verb for verb, _ in keeper.asked].count("reset") == 1
    with Typist("reset", "read-me", "--yes") as person:
        assert b"go on?" not in person.rest()
        assert person.status == 0
    assert bugbox("reset", "read-me", input=None).returncode == 0
    assert json.loads(bugbox("reset", "read-me", "--json").stdout)["state"] == "ready"


@pytest.mark.parametrize(
    ("record", "built"),
    [
        ({"folder": "/puzzles/tiny", "puzzle": "tiny"}, ("/puzzles/tiny", None)),
        ({"folder": "", "puzzle": "debian-12"}, (None, "debian-12")),
    ],
)
def test_reset_builds_what_changed_since_the_start(
    monkeypatch: pytest.MonkeyPatch, record: dict[str, str], built: tuple[Any, Any]
) -> None:
    done: list[Any] = []

    def ask(verb: str, args: dict[str, Any]) -> dict[str, Any]:
        done.append((verb, args["id"]))
        if verb == "debug":
            return {"record": {"id": "one-3f9k", **record}}
        if ("built", built) not in done:
            raise NotBuilt("not built yet")
        return {"id": args["id"], "state": "ready"}

    monkeypatch.setattr(cli_reset, "ask", ask)
    monkeypatch.setattr(
        cli_prepare,
        "ensure",
        lambda puzzle, image=None, kernel="": done.append(("built", (puzzle, image))),
    )
    assert cli_reset.afresh(None)["state"] == "ready"
    assert done == [("reset", None), ("debug", None), ("built", built), ("reset", "one-3f9k")]


def test_hint(keeper: FakeKeeper) -> None:
    hint = {"n": 2, "of": 3, "title": "Look", "text": "*There*.", "cost": 5, "next_in_s": 90}
    keeper.verbs["hint"] = lambda talk, args: talk.result([hint, hint] if "all" in args else hint)
    assert json.loads(bugbox("hint", "--json").stdout) == hint
    out = bugbox("hint", "2").stdout.decode()
    assert keeper.asked[-1][1] == {"id": None, "n": 2}
    assert out.startswith("Hint 2 of 3: Look  (costs 5)\n") and "1 min 30 s" in out
    assert bugbox("hint", "0").returncode == 0  # the fake does not mind; the session does
    assert keeper.asked[-1][1] == {"id": None, "n": 0}
    assert bugbox("hint", "--all").stdout.decode().count("Hint 2 of 3") == 2
    keeper.verbs["hint"] = lambda talk, _: talk.result({**hint, "text": None})
    assert "--now" in bugbox("hint").stdout.decode()


def test_ctrl_c_takes_back_and_says_how_to_go_on(keeper: FakeKeeper) -> None:
    taken_back = []

    def start(talk: Any, _: dict[str, Any]) -> None:
        talk.event(type="StepStarted", title="Boot")
        assert talk.sock.recv(1) == b""  # half a hang-up
        taken_back.append(True)
        talk.error("Interrupted", "interrupted", 130)

    keeper.verbs["start"] = start
    process = subprocess.Popen(
        [sys.executable, "-m", "bugbox", "start", "read-me"], stderr=subprocess.PIPE
    )
    while not keeper.asked:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and taken_back
    assert b"interrupted" in err and b"the same command goes on" in err


@pytest.mark.parametrize(
    ("words", "signo", "status", "told"),
    [
        (["start", "read-me"], signal.SIGTERM, 143, "terminated: all taken back"),
        (["reset", "read-me"], signal.SIGINT, 130, "interrupted: the machine is ended"),
    ],
)
def test_whoever_is_stopped_says_how_to_go_on(
    keeper: FakeKeeper, words: list[str], signo: int, status: int, told: str
) -> None:
    taken_back = []

    def wait(talk: Any, _: dict[str, Any]) -> None:
        talk.event(type="Notice", text="at work")
        assert talk.sock.recv(1) == b""
        taken_back.append(True)
        talk.error("Interrupted", "interrupted", 130)

    keeper.verbs |= {"start": wait, "reset": wait}
    process = subprocess.Popen(
        [sys.executable, "-m", "bugbox", *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"at work\n"
    process.send_signal(signo)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status and taken_back
    assert told in err.decode() and "the same command" in err.decode()


def test_a_second_ctrl_c_ends_at_once(keeper: FakeKeeper) -> None:
    keeper.verbs["start"] = lambda talk, _: time.sleep(60)
    process = subprocess.Popen(
        [sys.executable, "-m", "bugbox", "start", "read-me"], stderr=subprocess.PIPE
    )
    while not keeper.asked:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    for _ in range(30):  # two that come before the first was looked at count as one
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            break
    _, err = process.communicate(timeout=1)
    assert process.returncode == 130
    assert b"ended at once" in err


def test_a_bug_of_ours_leaves_a_report(keeper: FakeKeeper, home: Home) -> None:
    keeper.verbs["ps"] = lambda talk, _: talk.result([{"no": "id"}])
    done = bugbox("ps")
    assert done.returncode == 70
    (report_file,) = home.reports.iterdir()
    assert str(report_file) in done.stderr.decode()
    assert "Traceback" in report_file.read_text() and "KeyError" in report_file.read_text()


def test_a_home_that_cannot_be_made_is_the_hosts_matter(home: Home, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = bugbox("start", "read-me", env={"BUGBOX_HOME": str(tmp_path / "file/home")})
    assert done.returncode == 3 and b"BUGBOX_HOME" in done.stderr, done.stderr


def test_nobody_reads(keeper: FakeKeeper) -> None:
    row = {"id": "x" * 50, "state": "ready"}
    keeper.verbs["ps"] = lambda talk, _: talk.result([row] * 5000)
    process = subprocess.Popen(
        [sys.executable, "-m", "bugbox", "ps"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


def test_nobody_reads_the_help(home: Home) -> None:
    """The library that prints it has its own idea of a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "bugbox", "--help"],
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_standard_output(home: Home) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bugbox", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    assert done.returncode == 3 and b"standard output: No space left" in done.stderr, done.stderr


@pytest.mark.parametrize("words", [["ps"], ["start", "read-me"], ["gc"]])
def test_a_wrong_setting_is_seen_by_every_command(
    home: Home, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = bugbox(*words, env={"BUGBOX_TIMEOUT_FACTOR": "abc"})
    assert done.returncode == 2 and b"BUGBOX_TIMEOUT_FACTOR: expected a number" in done.stderr
    home.root.mkdir(exist_ok=True)
    home.settings.write_text("drivers = 'x'\n")
    done = bugbox(*words)
    assert done.returncode == 2 and b"did you mean driver?" in done.stderr
    assert bugbox(words[0], "--help").returncode == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["shel"], "did you mean shell?"),
        (["image", "lst"], "did you mean list?"),
        (["frobnicate"], "one of add, boot, build, bundle"),
        (["start", "--colt"], "--cold"),
        (["show", "red-me"], "did you mean read-me?"),
        (["serve"], "not there yet"),
        (["image", "export"], "not there yet"),
        (["ps", "--", "x"], "nothing after `--`"),
        (["play", "read-me"], "use --demo or start"),
        (["shell", "-t", "--", "vim"], "not a terminal"),
        (["shell", "--root", "--user", "x"], "not both"),
        (["cp", "a", "b"], "ID:PATH"),
        (["start", "--seed", "x"], "bugbox start --help"),
        (["start", "--seed", "x"], "expected a whole number, got 'x'"),
        (["shell", "read-me", "id", "-u"], "did you mean `bugbox shell read-me -- id -u`?"),
        (["ps", "x"], "`bugbox ps` has no use for: x"),
        (["cp"], "`bugbox cp` needs SOURCE"),
        (["new", "--", "-x"], "nothing after `--`"),
        (["new", "x"], "such as x-puzzle"),
        (["cp", "read-me:/etc/hosts", "-", "--json"], "both write to standard output"),
        (["solution", "red-me"], "did you mean read-me?"),
    ],
)
def test_the_users_mistake_is_2_with_the_nearest_right_thing(
    home: Home, words: list[str], hint: str
) -> None:
    done = bugbox(*words)
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_list_marks_what_is_solved(home: Home) -> None:
    home.prepare()
    line = {"event": "solved", "puzzle": "read-me"}
    given_up = {"event": "solved", "puzzle": "deleted-but-open", "gave_up": True}
    lines = ['{"event":"sol', json.dumps(line), "[]", json.dumps(given_up), ""]
    home.progress.write_text("\n".join(lines))
    shown = {row["name"]: row["solved"] for row in json.loads(bugbox("list", "--json").stdout)}
    assert shown["read-me"] is True and not all(shown.values())
    marked = [line for line in bugbox("list").stdout.decode().splitlines() if "✓" in line]
    assert len(marked) == 1 and "read-me" in marked[0]


def test_show(home: Home) -> None:
    facts = json.loads(bugbox("show", "read-me", "--json").stdout)
    assert facts["name"] == "read-me" and facts["checks"] and facts["solved"] is False
    out = bugbox("show", "read-me").stdout.decode()
    assert facts["title"] in out and "difficulty:" in out and "\x1b" not in out


def test_show_tells_all_that_a_manifest_says_of_itself(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "checks").mkdir(parents=True)
    (folder / "description.md").write_text("Something is wrong.\n")
    (folder / "checks/one.sh").write_text("#!/bin/sh\nfail no\n")
    (folder / "checks/one.sh").chmod(0o755)
    said = {
        "version": "1.10",
        "inspired_by": "a night on call",
        "language": "de",
        "license": "MIT",
        "difficulty": "hard",
        "skills": ["reading df"],
    }
    manifest = {
        "schema": 1,
        "name": "mine",
        "title": "Mine",
        "summary": "Short.",
        "checks": [{"id": "one", "title": "One", "run": "checks/one.sh"}],
        "authors": [{"name": "Ann", "url": "https://ann.example", "email": "ann@ann.example"},
                    {"name": "Bob"}],
        "scoring": {"points": 100, "first_try_bonus": 20},
        "check_policy": {"min_interval": "30s"},
        "ports": [{"name": "page", "port": 8080, "show": True}, {"name": "db", "port": 5432}],
        "network": {"egress": {"allow": ["deb.example:80"]}},
        **said,
    }  # fmt: skip
    (folder / "puzzle.yaml").write_text(json.dumps(manifest))
    lines = bugbox("show", str(folder)).stdout.decode().splitlines()
    found = dict(re.split(r": +", line, maxsplit=1) for line in lines if re.search(r"\w: ", line))
    assert "author:       Ann <ann@ann.example> (https://ann.example)" in lines
    assert "author:       Bob" in lines
    for key, value in said.items():
        name = {"license": "licence", "inspired_by": "inspired by"}.get(key, key)
        assert found[name] == (value if isinstance(value, str) else value[0])
    assert found["points"] == "100, 20 more at the first try"
    assert found["ports"] == "page (8080, tcp)"
    assert found["checks"] == "one in 30s at most, where it is served"
    facts = json.loads(bugbox("show", str(folder), "--json").stdout)
    assert facts["egress"] == {"allow": ["deb.example:80"]}
    assert {key: facts[key] for key in said} == said
    assert facts["authors"][0] == manifest["authors"][0]


def test_solution_is_not_given_away(home: Home) -> None:
    done = bugbox("solution", "read-me")
    assert done.returncode == 1 and b"--give-up" in done.stderr and done.stdout == b""
    assert b"setfacl" in bugbox("solution", "read-me", "--give-up").stdout


def test_solution_of_a_session_and_of_a_puzzle_that_none_has(keeper: FakeKeeper) -> None:
    told = {"title": "T", "text": "do so", "script": "true", "debrief": "why"}
    keeper.verbs["solution"] = lambda talk, _: talk.result(told)
    assert json.loads(bugbox("solution", "x", "--json").stdout) == told
    keeper.verbs["solution"] = lambda talk, _: talk.error("NotFound", "no session x", 2)
    assert bugbox("solution", "x").returncode == 2
    assert bugbox("solution", "read-me", "--give-up").returncode == 0


def test_logs_and_debug(keeper: FakeKeeper, home: Home) -> None:
    keeper.verbs["logs"] = lambda talk, args: talk.result(
        {"path": "/x/console.log", "text": f"{args['which']} \x1b[2J\n"}
    )
    assert bugbox("logs").stdout == b"console \\x1b[2J\n"
    assert bugbox("logs", "--vmm").stdout == b"vmm \\x1b[2J\n"
    assert bugbox("logs", "--vmm", "--boot").returncode == 2
    home.keeper_log.write_text("hello\n")
    assert bugbox("logs", "--keeper").stdout == b"hello\n"
    facts = {"record": {"id": "read-me-3f9k"}, "folder": "/x", "argv": ["qemu", "-m", "a b"]}
    keeper.verbs["debug"] = lambda talk, _: talk.result(facts)
    out = bugbox("debug").stdout.decode()
    assert out.endswith("qemu -m 'a b'\n")
    (bundle,) = home.reports.iterdir()
    names = subprocess.run(
        ["tar", "-tzf", bundle], capture_output=True, text=True, timeout=30, check=True
    ).stdout.split()
    assert {"facts.json", "console.log", "vmm.log", "keeper.log"} <= set(names)


def test_cp_both_ways(keeper: FakeKeeper, tmp_path: Path) -> None:
    kept: dict[str, Any] = {}
    data = os.urandom(300_000)

    def put(talk: Any, args: dict[str, Any]) -> None:
        talk.stream()
        kept.update(args, data=b"")
        for kind, payload in talk.frames():
            if kind == 0:
                kept["data"] += payload
            elif kind == 1:
                talk.frame(12, {"code": 0})
                return

    def get(talk: Any, args: dict[str, Any]) -> None:
        talk.stream()
        for at in range(0, len(data), 50_000):
            talk.frame(10, data[at : at + 50_000])
        talk.frame(12, {"code": 0})

    keeper.verbs |= {"put": put, "get": get}
    source = tmp_path / "notes"
    source.write_bytes(data)
    source.chmod(0o750)
    assert bugbox("cp", str(source), "read-me:/tmp/").returncode == 0
    assert kept["data"] == data and kept["path"] == "/tmp/notes" and kept["mode"] == 0o750
    assert bugbox("cp", "-", ":/tmp/x", input=data).returncode == 0
    assert kept["data"] == data and kept["id"] is None
    assert bugbox("cp", "-", ":/tmp/x", input=b"").returncode == 0
    assert kept["data"] == b"" and kept["size"] == 0
    (tmp_path / "into").mkdir()
    assert bugbox("cp", "read-me:/etc/hosts", str(tmp_path / "into")).returncode == 0
    assert (tmp_path / "into/hosts").read_bytes() == data
    assert bugbox("cp", "read-me:/etc/hosts", "-").stdout == data
    assert bugbox("cp", str(tmp_path / "nothing"), "x:/y").returncode == 2


def test_cp_that_breaks_off_leaves_what_was_there(keeper: FakeKeeper, tmp_path: Path) -> None:
    def get(talk: Any, args: dict[str, Any]) -> None:
        talk.stream()
        talk.frame(10, b"half")
        told = {"kind": "GuestError", "message": "gone", "hint": None, "detail": None, "exit": 1}
        talk.frame(14, told)

    keeper.verbs["get"] = get
    target = tmp_path / "there"
    target.write_text("before")
    assert bugbox("cp", "x:/y", str(target)).returncode == 1
    assert target.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".part")] == []


def test_completion_is_a_script_the_shell_understands(home: Home, tmp_path: Path) -> None:
    text = bugbox("completion", "bash").stdout
    script = tmp_path / "c.bash"
    script.write_bytes(text)
    ask = (
        f'. {script}; bugbox() {{ {sys.executable} -m bugbox "$@"; }}; '
        'COMP_WORDS=(bugbox {words}); COMP_CWORD={n}; _bugbox; echo "${{COMPREPLY[@]}}"'
    )

    def complete(*words: str) -> list[str]:
        line = ask.replace("{words}", " ".join(repr(w) for w in words)).replace(
            "{n}", str(len(words))
        )
        done = subprocess.run(
            ["bash", "-c", line.replace("{{", "{").replace("}}", "}")],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.split()

    assert complete("sh") == ["shell", "show"]
    assert complete("start", "--no-b") == ["--no-build"]
    assert complete("show", "read") == ["read-me"]
    assert "--no-no-build" not in complete("start", "--no")
    assert bugbox("completion", "tcsh").returncode == 2


def test_doctor_tells_what_is_there(home: Home) -> None:
    done = bugbox("doctor", "--json")
    told = json.loads(done.stdout)
    by_id = {check["id"]: check for check in told["checks"]}
    assert {"qemu", "kvm", "tools", "home", "sockets"} <= set(by_id)
    assert done.returncode == (0 if told["ok"] else 3)


def test_doctor_tells_which_disks_work_and_what_the_others_want(home: Home) -> None:
    found = {each["id"]: each for each in json.loads(bugbox("doctor", "--json").stdout)["checks"]}
    works = found["disks"]["text"].split(", ")
    assert {"qcow2", "copy", "overlay"} <= set(works)
    if "snapshot" not in works:
        told = found["disk snapshot"]
        assert told["status"] == "note" and "--disk snapshot does not work" in told["text"]
        assert told["fix"]


def test_doctor_tells_of_firecracker_and_misses_it_only_where_it_is_wanted(
    home: Home, tmp_path: Path
) -> None:
    def found(**env: str) -> dict[str, str]:
        said = bugbox("doctor", "--json", env=env).stdout
        return next(e for e in json.loads(said)["checks"] if e["id"] == "firecracker")

    nowhere = {"BUGBOX_FIRECRACKER": str(tmp_path / "nowhere")}
    assert found(**nowhere)["status"] == "note"
    lacking = found(**nowhere, BUGBOX_DRIVER="firecracker")
    assert lacking["status"] == "missing" and "releases" in lacking["fix"]
    old = tmp_path / "firecracker"
    old.write_text("#!/bin/sh\necho Firecracker v1.9.0\n")
    old.chmod(0o755)
    assert "needs 1.12" in found(BUGBOX_FIRECRACKER=str(old))["text"]


def test_doctor_names_the_line_that_brings_a_lack(home: Home) -> None:
    done = bugbox("doctor", env={"BUGBOX_QEMU": "qemu-system-nowhere"})
    assert done.returncode == 3
    assert "qemu-system-nowhere is not installed" in done.stdout.decode()


def test_story_matches_what_the_tests_think(keeper: FakeKeeper) -> None:
    assert STORY["id"] == "read-me-3f9k"


def test_the_milestones_of_a_boot_are_a_table(keeper: FakeKeeper) -> None:
    text = json.dumps(
        {"boot_id": "x", "milestones": {"root": 1_500_000_000, "lifeline": 400_000_000}}
    )
    keeper.verbs["logs"] = lambda talk, _: talk.result({"path": "/x/boot.json", "text": text})
    lines = bugbox("logs", "--boot").stdout.decode().splitlines()
    assert lines[:3] == ["    0.000 s  kernel", "    0.400 s  lifeline", "    1.500 s  root"]
    keeper.verbs["logs"] = lambda talk, _: talk.result({"path": "/x/boot.json", "text": "{"})
    assert bugbox("logs", "--boot").stdout == b"{\n"


def test_lint_goes_on_after_a_name_that_is_none(home: Home) -> None:
    done = bugbox("lint", "nope", "read-me")
    assert done.returncode == 2
    assert b"no puzzle is called nope" in done.stderr and b"1 puzzle: no errors" in done.stderr


def test_new_says_whose_name_it_takes(home: Home, tmp_path: Path) -> None:
    done = bugbox("new", "read-me", cwd=tmp_path)
    assert done.returncode == 0 and b"./read-me means yours" in done.stderr


def test_list_names_a_folder_that_is_not_there(home: Home) -> None:
    done = bugbox("list", env={"BUGBOX_PUZZLES": "/nonexistent"})
    assert done.returncode == 0 and b"/nonexistent" in done.stderr


def test_stages_are_told_where_no_terminal_is(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown():
        for title in ("Fetch the kernel", "Make the base image"):
            with step(title):
                notice("  | a line")
    assert capsys.readouterr().err == "Fetch the kernel …\n  | a line\nMake the base image …\n"
    tell(BuildFailed("build.sh ended with status 1", detail="a line"))
    assert capsys.readouterr().err == "bugbox: build.sh ended with status 1\n"
    tell(BuildFailed("build.sh ended with status 1", detail="a line\nanother"))
    assert "  | another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"image": "debian-12"}, "bugbox image build debian-12 makes it"),
        ({"puzzle": str(shipped_puzzles() / "read-me")}, "bugbox build read-me makes it"),
        ({"puzzle": "/mine/own"}, "bugbox build /mine/own makes it"),
    ],
)
def test_no_build_says_what_builds(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, Any], words: str
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise NotBuilt("not built")

    monkeypatch.setattr(cli_start, "ask", ask)
    with pytest.raises(NotBuilt) as caught:
        cli_start.begin(args, no_build=True)
    assert words in str(caught.value.hint)


def test_the_console_ends_with_its_input(keeper: FakeKeeper) -> None:
    def console(talk: Any, _: Any) -> None:
        talk.stream()
        talk.frame(10, b"booted\n")
        for _frame in talk.frames():
            pass

    keeper.verbs["console"] = console
    done = bugbox("console")
    assert (done.returncode, done.stdout) == (0, b"booted\n")


def test_the_console_on_a_terminal_says_how_to_leave(keeper: FakeKeeper) -> None:
    def console(talk: Any, _: Any) -> None:
        talk.stream()
        talk.frame(10, b"one\ntwo\r\n")
        for _frame in talk.frames():
            pass

    keeper.verbs["console"] = console
    with Typist("console") as person:
        assert b"Ctrl-] leaves" in person.until(b"one\r\ntwo\r\n")
        person.type(b"\x1d")
        person.rest()
        assert person.status == 0 and person.restored
