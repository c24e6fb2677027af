# SPDX-License-Identifier: Apache-2.0
"""Scenarios of the Killercoda format as puzzles; and folders that mean no good."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bugbox.errors import DefinitionError, NotFound, UserError
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.importer.folder import bring_in, slug
from bugbox.puzzle.importer.prose import converted
from bugbox.puzzle.importer.report import Notes
from bugbox.puzzle.lint import lint
from bugbox.puzzle.script import with_helpers

SCENARIO = Path(__file__).parents[1] / "data/scenario/dead-letters"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SCENARIO, tmp_path / "source" / "dead-letters"))


def imported(source: Path, tmp_path: Path, name: str | None = None) -> tuple[Puzzle, Notes]:
    folder, notes = bring_in("killercoda", source, tmp_path, name)
    return load(folder), notes


def told(notes: Notes, kind: str) -> list[str]:
    return [f"{note.where}: {note.message}" for note in notes.found if note.kind == kind]


def test_a_scenario_becomes_a_puzzle(source: Path, tmp_path: Path) -> None:
    puzzle, _ = imported(source, tmp_path)
    wishes = puzzle.manifest
    assert (puzzle.name, puzzle.title) == ("dead-letters", "Dead letters")
    assert (wishes.difficulty, wishes.estimated_time) == ("easy", 15 * 60)
    assert wishes.user.name == "root"
    assert [(check.id, check.title, check.needs) for check in puzzle.checks] == [
        ("step-1", "Find the letters", ()),
        ("step-2", "Sort them again", ("step-1",)),
    ]
    assert [(port.name, port.port) for port in wishes.ports] == [("port-8080", 8080)]
    for text in ("http://127.0.0.1:8080 when", "(The office)", "`ls /opt/post`\n", "{ {RULES} }"):
        assert text in puzzle.description
    assert "<details>" not in puzzle.description and "wc -l" not in puzzle.description
    assert "chmod 644 /opt/post/rules.conf" in puzzle.walkthrough
    assert puzzle.debrief.startswith("Sorted.")
    assert puzzle.solve is not None and b"wc -l >/root/count\nchmod 644" in puzzle.solve.text
    assert puzzle.build is not None
    assert b"install -D -m 755 files/assets/1-sort-letters /opt/post/bin/" in puzzle.build.text
    assert b"install -D -m 644 files/assets/2-rules.conf /opt/post/rules.conf" in puzzle.build.text
    assert (puzzle.folder / "files/assets/2-rules.conf").read_text() == "by street\n"


def test_only_what_an_author_must_do_is_left_to_lint(source: Path, tmp_path: Path) -> None:
    puzzle, _ = imported(source, tmp_path)
    assert [finding.rule for finding in lint(puzzle.folder)] == ["no-wrong-fix", "no-hints"]


def test_what_does_not_carry_over_is_told(source: Path, tmp_path: Path) -> None:
    _, notes = imported(source, tmp_path)
    assert told(notes, "lost") == [
        "index.json: interface: how it looked there",
        "description.md: pictures: a terminal shows none",
        "step 2: its background script: all is set up before the start here",
    ]
    assert told(notes, "changed") == [
        "user: the learner is root, as there",
        "index.json: backend.imageid: ubuntu becomes debian-12",
        "solution.md: what was folded away in <details> lies here",
        "description.md: {{exec}} and {{copy}}: commands are text, to be typed",
        "ports: links to the machine's ports: `bugbox forward` opens them",
        "break.sh: the intro's scripts run once, before the machine is handed over",
    ]
    assert [line.split(":")[0] for line in told(notes, "todo")] == [
        "checks/step-1.sh", "checks/step-2.sh", "solve.sh", "break.sh", "wrong.d", "hints",
    ]  # fmt: skip


def run(text: bytes, shell: list[str]) -> tuple[int, str]:
    done = subprocess.run([*shell, "-c", text], capture_output=True, timeout=30, check=False)
    return done.returncode, done.stdout.decode()


SHELLS = [
    pytest.param(shell, marks=pytest.mark.skipif(not shutil.which(shell[0]), reason=shell[0]))
    for shell in (["busybox", "sh"], ["dash"])
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("verify", "status"),
    [
        ("#!/bin/bash\nset -e\n[[ abc == a* ]]\n", 0),
        ("#!/bin/bash\nset -e\nfalse\ntrue\n", 1),
        ("exit 7", 1),
        ("no-such-program-at-all\n", 1),
        ("cat <<'END_OF_IMPORTED_SCRIPT'\nx\nEND_OF_IMPORTED_SCRIPT\nread -r x && exit 1; true", 0),
        ('echo "it\'s (odd) $(echo x) `echo y`"; case x in x) exit 0;; esac; exit 1\n', 0),
    ],
)
def test_a_verify_script_decides_as_it_did(
    source: Path, tmp_path: Path, verify: str, status: int, shell: list[str]
) -> None:
    """By the machine's bash, with an empty input; whatever it fails with, the check has failed."""
    (source / "step1/verify.sh").write_text(verify)
    puzzle, _ = imported(source, tmp_path)
    script = puzzle.checks[0].script
    assert script is not None
    found, said = run(with_helpers(script.text), shell)
    assert (found, said) == (status, "" if status == 0 else "Not yet: Find the letters\n")


def test_the_first_scripts_run_one_after_the_other(source: Path, tmp_path: Path) -> None:
    (source / "intro-background.sh").write_text("#!/bin/bash\necho one; exit 3\n")
    puzzle, _ = imported(source, tmp_path)
    assert puzzle.break_ is not None
    status, said = run(puzzle.break_.text, ["sh"])
    assert status == 0 and "one\n" in said and "Welcome to the post office.\n" in said


def test_what_wants_a_network_or_a_cluster_is_told(source: Path, tmp_path: Path) -> None:
    (source / "intro-background.sh").write_text("apt-get install -y x\n# curl\nkubectl get pods\n")
    (source / "step1/verify.sh").write_text("#!/usr/bin/env python3\nprint()\n")
    index = json.loads((source / "index.json").read_text())
    index["backend"]["imageid"] = "kubernetes-kubeadm-1node"
    (source / "index.json").write_text(json.dumps(index))
    _, notes = imported(source, tmp_path)
    lost = "\n".join(told(notes, "lost"))
    assert "uses apt-get: neither build nor machine reaches a network" in lost
    assert "the base image has no Kubernetes" in lost and "speaks to Kubernetes" in lost
    assert "is run by /usr/bin/python3" in "\n".join(told(notes, "changed"))


def test_a_scenario_that_verifies_nothing_gets_a_check_to_write(
    source: Path, tmp_path: Path
) -> None:
    (source / "index.json").write_text('{"title": "T", "details": {"steps": [{"text": "no.md"}]}}')
    puzzle, notes = imported(source, tmp_path)
    assert [check.id for check in puzzle.checks] == ["todo"]
    assert "no.md: no such file" in "\n".join(told(notes, "lost"))


def test_katacodas_older_words(source: Path, tmp_path: Path) -> None:
    index = json.loads((source / "index.json").read_text())
    intro = index["details"]["intro"]
    intro["courseData"], intro["code"] = intro.pop("background"), intro.pop("foreground")
    (source / "index.json").write_text(json.dumps(index))
    puzzle, _ = imported(source, tmp_path)
    assert puzzle.break_ is not None and b"/srv/letters" in puzzle.break_.text
    text = "See https://[[HOST_SUBDOMAIN]]-80-[[KATACODA_HOST]].environments.katacoda.com/a now"
    made = converted(text)
    assert made.text == "See http://127.0.0.1:80 now" and made.ports == (80,)


# Bad input.


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (b"", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"a": ' + b"[" * 100_000, "not JSON"),
        (b'"' + b"x" * (300 << 10) + b'"', "larger than 256 KiB"),
        (b"\xff\xfe\xff", "not JSON"),
    ],
)
def test_an_index_that_is_none(source: Path, tmp_path: Path, index: bytes, error: str) -> None:
    (source / "index.json").write_bytes(index)
    with pytest.raises(DefinitionError, match=error):
        imported(source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_an_index_that_is_missing_special_or_elsewhere(source: Path, tmp_path: Path) -> None:
    index = source / "index.json"
    index.unlink()
    with pytest.raises(NotFound, match="not there"):
        imported(source, tmp_path)
    os.mkfifo(index)
    with pytest.raises(DefinitionError, match="special file"):
        imported(source, tmp_path)
    index.unlink()
    index.symlink_to("/etc/passwd")
    with pytest.raises(DefinitionError, match="leaves"):
        imported(source, tmp_path)
    with pytest.raises(NotFound, match="not a folder"):
        imported(source / "nowhere", tmp_path)


def test_nothing_outside_of_the_folder_is_read(source: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    (source / "assets/rules.conf").unlink()
    (source / "assets/rules.conf").symlink_to(secret)
    (source / "finish.md").unlink()
    (source / "finish.md").symlink_to(secret)
    index = json.loads((source / "index.json").read_text())
    index["details"]["intro"]["text"] = "../../secret"
    index["details"]["steps"][0]["text"] = str(secret)
    index["details"]["assets"]["host01"].append({"file": "../../../secret", "target": "/x"})
    (source / "index.json").write_text(json.dumps(index))
    puzzle, notes = imported(source, tmp_path)
    for path in puzzle.folder.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or b"the secret" not in path.read_bytes()
    lost = "\n".join(told(notes, "lost"))
    for name in ("../../secret", str(secret), "assets/rules.conf", "finish.md"):
        assert name in lost


def test_odd_names_run_nothing_in_a_build(source: Path, tmp_path: Path) -> None:
    """A quote, a newline or a dash in a name or a title is no word of a script."""
    (source / "assets/a'; touch x; '").write_text("x")
    index: dict[str, Any] = json.loads((source / "index.json").read_text())
    index["title"] = "It's \x1b[2J $(touch x)\nname: evil"
    index["details"]["steps"][0]["title"] = "Don't $(touch x)\nexit 0 #"
    index["details"]["assets"]["host01"] += [
        {"file": "a*", "target": "/x"},
        {"file": "rules.conf", "target": "/x; touch y"},
        {"file": "rules.conf", "target": "/a/../b"},
    ]
    (source / "index.json").write_text(json.dumps(index))
    (source / "step1/verify.sh").write_text("exit 1\n")
    puzzle, notes = imported(source, tmp_path)
    assert "\x1b" not in puzzle.title and puzzle.name == "dead-letters"
    script = puzzle.checks[0].script
    assert script is not None
    done = subprocess.run(
        ["sh", "-c", with_helpers(script.text)], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, b"Not yet: Don't $(touch x) exit 0 #\n")
    assert not (tmp_path / "x").exists()
    assert puzzle.build is not None and b"touch" not in puzzle.build.text
    assert b".." not in puzzle.build.text
    assert sum("is too odd" in line for line in told(notes, "lost")) == 3
    assert all("\x1b" not in note.message for note in notes.found)


def test_a_name_that_is_taken_or_none(source: Path, tmp_path: Path) -> None:
    imported(source, tmp_path)
    with pytest.raises(UserError, match="already there"):
        imported(source, tmp_path)
    with pytest.raises(UserError, match="lower-case"):
        imported(source, tmp_path, "../evil")
    with pytest.raises(UserError, match="no import of 'tar'"):
        bring_in("tar", source, tmp_path)


@pytest.mark.parametrize(
    ("text", "name"), [("My Lab (1)", "my-lab-1"), ("x", "x-imported"), ("ÄÖ", "imported")]
)
def test_a_name_from_a_folders(text: str, name: str) -> None:
    assert slug(text) == name


@pytest.mark.parametrize(
    "part", ["<details>", "![", "{{", "```\n", "<summary>", "[[HOST_SUBDOMAIN]]-", "<br", "{{exec "]
)
def test_a_strange_text_costs_little(part: str) -> None:
    begun = time.process_time()
    converted(part * ((64 << 10) // len(part)))
    assert time.process_time() - begun < 5
