# SPDX-License-Identifier: Apache-2.0
"""A puzzle's folder: what is accepted, and what each mistake is told."""

import os
import re
import socket
from pathlib import Path

import pytest

from bugbox.errors import DefinitionError, NotFound
from bugbox.paths import shipped_puzzles
from bugbox.puzzle.definition import load, read
from bugbox.puzzle.scaffold import create

MINIMAL = """\
schema: 1
name: demo
title: A title
summary: A summary.
checks:
  - id: one
    title: It is one
    run: checks/one.sh
"""


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "checks").mkdir(parents=True)
    (folder / "puzzle.yaml").write_text(MINIMAL)
    (folder / "description.md").write_text("It is broken.\n")
    script(folder / "checks/one.sh")
    return folder


def script(path: Path, text: str = "#!/bin/sh\nfail no\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def problems(folder: Path) -> list[str]:
    """Every problem as `file:line:column: text`, the folder cut off."""
    with pytest.raises(DefinitionError) as caught:
        load(folder)
    assert caught.value.exit_status == 2
    return [line.removeprefix(f"{folder}/") for line in caught.value.message.split("\n")]


def manifest(folder: Path, more: str) -> list[str]:
    (folder / "puzzle.yaml").write_text(MINIMAL + more)
    return problems(folder)


def test_the_smallest_puzzle_has_the_contracts_defaults(demo: Path) -> None:
    puzzle = load(demo)
    assert (puzzle.name, puzzle.base, puzzle.base_digest) == ("demo", "debian-12", None)
    machine = puzzle.manifest.machine
    assert (machine.vcpus, machine.memory, machine.disk) == (1, 256 << 20, 2 << 30)
    assert (puzzle.manifest.user.name, puzzle.manifest.user.sudo) == ("learner", "full")
    assert (puzzle.manifest.boot.timeout, puzzle.manifest.build.timeout) == (60.0, 300.0)
    assert puzzle.manifest.network.egress == "none"
    check = puzzle.checks[0]
    assert (check.user, check.timeout_s, check.where) == ("root", 10.0, "guest")
    assert check.script.text == b"#!/bin/sh\nfail no\n"
    assert (puzzle.build, puzzle.solve, puzzle.inputs) == (None, None, ())


def test_usual_names_are_found(demo: Path) -> None:
    for name in ("build.sh", "break.sh", "boot.sh", "session.sh", "ready.sh", "solve.sh"):
        script(demo / name)
    script(demo / "solve.d/10.sh")
    script(demo / "solve.d/9.sh")
    script(demo / "wrong.d/bad.sh")
    (demo / "hints").mkdir()
    (demo / "hints/2.md").write_text("Second.\n")
    (demo / "hints/10.md").write_text("Tenth.\n")
    (demo / "hints/1.md").write_text("# Where to look\n\nHere.\n")
    (demo / "files").mkdir()
    puzzle = load(demo)
    assert puzzle.break_ and puzzle.boot and puzzle.session and puzzle.ready and puzzle.build
    names = ["solve.sh", "solve.d/9.sh", "solve.d/10.sh"]
    assert [each.name for each in puzzle.solutions] == names
    assert [hint.title for hint in puzzle.hints] == ["Where to look", "Hint 2", "Hint 3"]
    assert [hint.text for hint in puzzle.hints] == ["Here.\n", "Second.\n", "Tenth.\n"]
    assert puzzle.inputs == (demo / "files",)


def test_names_of_the_manifest_win(demo: Path) -> None:
    script(demo / "boot.sh")
    script(demo / "other.sh", "#!/bin/sh\n: other\n")
    (demo / "puzzle.yaml").write_text(MINIMAL + "boot: {script: other.sh, timeout: 1m30s}\n")
    puzzle = load(demo)
    assert puzzle.boot and puzzle.boot.text == b"#!/bin/sh\n: other\n"
    assert puzzle.manifest.boot.timeout == 90


@pytest.mark.parametrize("folder", sorted(shipped_puzzles().glob("*/puzzle.yaml")))
def test_the_catalogue_loads(folder: Path) -> None:
    puzzle = load(folder.parent)
    assert puzzle.solve and puzzle.wrong and puzzle.hints


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("sumry: x\n", "9:1: sumry: unknown key; did you mean summary?"),
        ("memory: 1GiB\n", "9:1: memory: unknown key; did you mean machine.memory?"),
        ("qqqqqq: 1\n", "9:1: qqqqqq: unknown key; the keys known here are schema, name, title"),
        (
            "version: 1.10\n",
            "9:10: version: expected text, got the number 1.10 (YAML reads it as 1.1): "
            'put it in quotes, "1.10"',
        ),
        (
            "version: 2024-01-01\n",
            "9:10: version: expected text, got the date 2024-01-01: put it in quotes",
        ),
        ("license: 3\n", '9:10: license: expected text, got the number 3: put it in quotes, "3"'),
        ("tags: disk\n", '9:7: tags: expected a list, got "disk"'),
        ("tags: [a, 7]\n", "9:11: tags[1]: expected text, got the number 7"),
        ("difficulty: hrad\n", "9:13: difficulty: expected 'easy', 'medium', 'hard' or 'expert'"),
        ("guest_client: no\n", '9:15: guest_client: expected true or false, got "no"'),
        ("machine:\n  vcpus: 99\n", "10:10: machine.vcpus: expected a whole number from 1 to 8"),
        ("machine: {vcpus: 1.5}\n", "9:18: machine.vcpus: expected a whole number, got the num"),
        ("machine: {vcpus: true}\n", "9:18: machine.vcpus: expected a whole number, got the tr"),
        (
            "machine: {memory: 256}\n",
            "9:19: machine.memory: expected a size with its unit, such as 256MiB, "
            "from 128MiB to 16GiB, got the number",
        ),
        ("machine: {memory: 256MB}\n", "9:19: machine.memory: expected a size with its unit"),
        ("machine: {memory: 1MiB}\n", "9:19: machine.memory: expected a size from 128MiB to 16G"),
        ("machine: {memory: 1TiB}\n", "9:19: machine.memory: expected a size from "),
        ("machine: 3\n", "9:10: machine: expected a mapping of vcpus, memory, disk, disks, got"),
        ("build:\n", "9:1: build: expected a mapping of script, timeout"),
        ("boot: {timeout: 60}\n", "9:17: boot.timeout: expected a duration with its unit, such"),
        ("boot: {timeout: 1x}\n", "9:17: boot.timeout: expected a duration with its unit, such a"),
        ("boot: {timeout: 9h}\n", "9:17: boot.timeout: expected a duration from 1s to 30m, got"),
        ("base: ubuntu-24.04\n", "9:7: base: expected debian-12 or debian-12-tini, the base imag"),
        ("base: debian-12-tini@1\n", "9:7: base: expected debian-12-tini, or debian-12-tini@"),
        ("base: debian-12@sha256:12\n", "9:7: base: expected debian-12, or debian-12@sha256: and"),
        ("arch: [aarch64]\n", "9:8: arch[0]: expected 'x86_64', got \"aarch64\""),
        ("title2: x\n", "9:1: title2: unknown key; did you mean title?"),
        ("user: {name: Root}\n", "9:14: user.name: expected the name of a user, such as root"),
        ("kernel: 6.1\n", "9:9: kernel: expected text, got the number 6.1"),
        ("kernel: ../6\n", "9:9: kernel: expected a kernel's version, release or profile, got"),
        ("user: {sudo: limited}\n", "9:7: user: expected commands beside sudo: limited"),
        ("user: {commands: [/bin/ls]}\n", "9:7: user: expected sudo: limited beside commands"),
        (
            "user: {sudo: limited, commands: [ls]}\n",
            "9:34: user.commands[0]: expected a program's full path, with plain arguments",
        ),
        (
            "user: {sudo: limited, commands: ['/bin/ls *']}\n",
            "9:34: user.commands[0]: expected a program's full path, with plain arguments",
        ),
        (
            "user: {sudo: limited, commands: ['/bin/ls, ALL']}\n",
            "9:34: user.commands[0]: expected a program's full path, with plain arguments",
        ),
        ("access: {terminals: 0}\n", "9:21: access.terminals: expected a whole number from 1 to"),
        ("session: {duration: 60}\n", "9:21: session.duration: expected a duration with its uni"),
        ("session: {extend: 1h}\n", "9:10: session: expected duration beside extend"),
        (
            "session: {duration: 1h, deadline: 30m}\n",
            "9:10: session: expected a deadline that is not before duration is over",
        ),
        (
            "session: {idle: 1h, pausable: false}\n",
            "9:10: session: expected no duration, deadline or idle beside pausable: false",
        ),
        ("next: [../x]\n", "9:8: next[0]: expected 2 to 63 lower-case letters"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(demo: Path, more: str, expected: str) -> None:
    found = manifest(demo, more)
    assert len(found) == 1
    assert found[0].startswith(f"puzzle.yaml:{expected}")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "access: {ssh: true}\n",
            "9:10: access.ssh: true is not supported yet: nothing here serves SSH; "
            "bugbox shell is the way in",
        ),
    ],
)
def test_what_nothing_reads_is_refused(demo: Path, more: str, expected: str) -> None:
    assert manifest(demo, more) == [f"puzzle.yaml:{expected}"]


def test_all_problems_come_at_once_in_the_order_of_lines(demo: Path) -> None:
    (demo / "puzzle.yaml").write_text(
        MINIMAL.replace("title: A title\n", "")
        + "  - {id: one, title: x, run: checks/none.sh, needs: [two], timeout: 5}\n"
        + "unheard: 1\nversion: 1.0\n"
    )
    (demo / "description.md").unlink()
    (demo / "checks/one.sh").chmod(0o644)
    lines = [re.sub(r": (expected|unknown).*", "", line) for line in problems(demo)]
    assert lines == [
        "puzzle.yaml:1:1: title: this key is missing: What a learner sees first",
        f"puzzle.yaml:7:10: checks[0].run: checks/one.sh: it has no run bit: chmod +x {demo}"
        "/checks/one.sh",
        'puzzle.yaml:8:10: checks[1].id: "one" is already the id of checks[0]',
        f"puzzle.yaml:8:30: checks[1].run: checks/none.sh: no such file in {demo}",
        "puzzle.yaml:8:54: checks[1].needs[0]",
        "puzzle.yaml:8:69: checks[1].timeout",
        "puzzle.yaml:9:1: unheard",
        "puzzle.yaml:10:10: version",
        f"description.md:1:1: no such file in {demo}",
    ]


def test_checks_that_contradict_themselves(demo: Path) -> None:
    entry = "  - {id: two, title: x, run: checks/one.sh, %s}\n"
    assert manifest(demo, entry % "after: reboot") == [
        "puzzle.yaml:9:52: checks[1].after: needs where: clone beside it"
    ]
    assert manifest(demo, entry % "needs: [two]")[0].startswith(
        "puzzle.yaml:9:53: checks[1].needs[0]: expected the id of a check above this one"
    )
    (demo / "puzzle.yaml").write_text(MINIMAL + entry % "where: clone, after: reboot")
    assert load(demo).checks[1].after == "reboot"


@pytest.mark.parametrize("name", ["../demo", "Demo", "d", "a/b", "de mo", "x" * 64, "-demo"])
def test_names_that_cannot_be(demo: Path, name: str) -> None:
    (demo / "puzzle.yaml").write_text(MINIMAL.replace("name: demo", f"name: '{name}'"))
    assert problems(demo)[0].startswith("puzzle.yaml:2:7: name: expected 2 to 63 lower-case")


def test_the_name_is_the_folders(demo: Path) -> None:
    (demo / "puzzle.yaml").write_text(MINIMAL.replace("name: demo", "name: other"))
    assert problems(demo) == [
        'puzzle.yaml:2:7: name: expected the name of its folder, demo, got "other"'
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/passwd", "expected a path inside the puzzle's folder, not an absolute one"),
        ("~/x.sh", "expected a path inside the puzzle's folder, not an absolute one"),
        ("checks/../../x.sh", "expected a path inside the puzzle's folder, without '..'"),
        ("checks//one.sh", "expected a plain path such as checks/space.sh"),
        ("./checks/one.sh", "expected a plain path such as checks/space.sh"),
        ('"a\\0b"', "expected a plain path such as checks/space.sh"),
        ('"\\uD800"', "expected text without half characters"),
        ("checks", "checks: a folder, not a regular file"),
        ("nowhere.sh", "nowhere.sh: no such file in"),
        ("dangling.sh", "dangling.sh: a symbolic link to nowhere"),
        ("loop.sh", "loop.sh: a loop of symbolic links"),
        ("out.sh", "out.sh: a symbolic link that leaves the puzzle's folder"),
        ("outdir/x.sh", "outdir/x.sh: a symbolic link that leaves the puzzle's folder"),
        ("fifo.sh", "fifo.sh: a special file, not a regular file"),
        ("big.sh", "big.sh: larger than 48 KiB"),
        ("nul.sh", "nul.sh: not a script: it holds a NUL byte"),
        ("x" * 190, "no such file"),
        ("n/" * 90 + "x", "no such file"),
    ],
)
def test_a_path_stays_in_the_folder(demo: Path, path: str, expected: str) -> None:
    outside = script(demo.parent / "x.sh")
    (demo / "dangling.sh").symlink_to("nothing")
    (demo / "loop.sh").symlink_to("loop.sh")
    (demo / "out.sh").symlink_to(outside)
    (demo / "outdir").symlink_to(demo.parent)
    os.mkfifo(demo / "fifo.sh")
    script(demo / "big.sh", "#" * 50_000)
    script(demo / "nul.sh", "#!/bin/sh\n\0\n")
    text = MINIMAL.replace("run: checks/one.sh", f"run: {path}")
    (demo / "puzzle.yaml").write_text(text)
    found = problems(demo)
    assert len(found) == 1 and expected in found[0]
    assert found[0].startswith("puzzle.yaml:8:10: checks[0].run: ")


def test_a_link_inside_the_folder_is_fine(demo: Path) -> None:
    (demo / "checks/two.sh").symlink_to("one.sh")
    (demo / "puzzle.yaml").write_text(MINIMAL.replace("checks/one.sh", "checks/two.sh"))
    assert load(demo).checks[0].script.name == "checks/two.sh"


@pytest.mark.parametrize("name", ["build.sh", "ready.sh", "solve.sh", "wrong.d/a.sh"])
def test_a_script_without_run_bit_says_what_to_type(demo: Path, name: str) -> None:
    script(demo / name).chmod(0o644)
    assert problems(demo) == [f"{name}:1:1: it has no run bit: chmod +x {demo / name}"]


def test_folders_that_are_none(demo: Path) -> None:
    (demo / "wrong.d").write_text("x")
    (demo / "solve.d").symlink_to("/etc")
    (demo / "files").symlink_to("/etc")
    assert sorted(problems(demo)) == [
        "files:1:1: expected a folder",
        "solve.d:1:1: a symbolic link that leaves the puzzle's folder",
        "wrong.d:1:1: expected a folder",
    ]


def test_files_holds_nothing_that_leads_out(demo: Path) -> None:
    (demo / "files/etc").mkdir(parents=True)
    (demo / "files/etc/inside").symlink_to("../top")
    (demo / "files/etc/shadow").symlink_to("/etc/shadow")
    (demo / "files/up").symlink_to("../description.md")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(demo / "files/socket"))
    assert sorted(problems(demo)) == [
        "files/etc/shadow:1:1: a symbolic link that leaves files/; make it in build.sh",
        "files/socket:1:1: neither a file nor a folder",
        "files/up:1:1: a symbolic link that leaves files/; make it in build.sh",
    ]


def test_texts_are_utf8_and_bounded(demo: Path) -> None:
    (demo / "description.md").write_bytes(b"fine\nnot \xff fine\n")
    assert problems(demo) == ["description.md:2:5: not UTF-8: byte 0xff"]
    (demo / "description.md").write_bytes(b"x" * (1 << 20))
    assert problems(demo) == ["description.md:1:1: larger than 64 KiB"]
    (demo / "description.md").write_bytes(b" \n")
    assert problems(demo) == ["description.md:1:1: it is empty"]


def test_hints_of_the_manifest(demo: Path) -> None:
    (demo / "h.md").write_text("Look.\n")
    hint = "hints:\n  - {title: T, file: h.md, not_before: 4m, not_before_checks: 3, cost: 20}\n"
    (demo / "puzzle.yaml").write_text(MINIMAL + hint)
    found = load(demo).hints[0]
    assert (found.title, found.text, found.not_before_s) == ("T", "Look.\n", 240.0)
    assert (found.not_before_checks, found.cost) == (3, 20)
    assert manifest(demo, hint.replace("h.md", "x.md"))[0].startswith(
        "puzzle.yaml:10:22: hints[0].file: x.md: no such file"
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "hello\n", "3\n", "null\n"])
def test_a_manifest_of_another_shape(demo: Path, text: str) -> None:
    (demo / "puzzle.yaml").write_text(text)
    assert problems(demo)[0].startswith(
        "puzzle.yaml:1:1: expected a mapping with at least schema, name, title, summary, checks"
    )


def test_an_escape_sequence_in_a_value_is_shown_and_not_sent(demo: Path) -> None:
    found = manifest(demo, 'difficulty: "\\e]0;owned\\a"\n')
    assert "\x1b" not in found[0] and "\\x1b]0;owned\\x07" in found[0]


def test_a_new_version_of_the_format_is_not_guessed_at(demo: Path) -> None:
    (demo / "puzzle.yaml").write_text(MINIMAL.replace("schema: 1", "schema: 2"))
    assert problems(demo) == ["puzzle.yaml:1:9: schema: expected 1, got the number 2"]


def test_no_folder_and_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a folder"):
        load(tmp_path / "none")
    assert problems(tmp_path)[0] == f"puzzle.yaml:1:1: no such file in {tmp_path}"
    (tmp_path / "puzzle.yaml").symlink_to("/etc/passwd")
    assert "a symbolic link that leaves" in problems(tmp_path)[0]


def test_a_great_many_problems_are_cut_short(demo: Path) -> None:
    found = manifest(demo, "".join(f"key{n}: 1\n" for n in range(200)))
    assert len(found) == 51 and found[-1] == "and 150 more"


def test_a_broken_puzzle_is_no_puzzle_but_a_list_of_problems(demo: Path) -> None:
    (demo / "puzzle.yaml").write_text(MINIMAL + "nope: 1\n")
    puzzle, found = read(demo)
    assert puzzle is None
    assert [(each.line, each.column, each.key) for each in found] == [(9, 1, "nope")]


def test_what_new_writes_is_a_puzzle(tmp_path: Path) -> None:
    puzzle = load(create(tmp_path, "my-first"))
    assert puzzle.build and puzzle.ready and puzzle.solve and len(puzzle.wrong) == 2
    assert len(puzzle.hints) == 2 and puzzle.walkthrough and puzzle.debrief


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "machine: {disks: [{name: a, size: 1MiB, mount: /a}]}\n",
            "9:19: machine.disks[0]: expected fs beside mount, got a mapping",
        ),
        (
            "machine: {disks: [{name: a, size: 1MiB, fs: ext4, mount: /a/../b}]}\n",
            "9:58: machine.disks[0].mount: expected a plain absolute path of the guest, "
            'such as /var/spool/app, got "/a/../b"',
        ),
        (
            "network: {egress: {allow: ['a']}}\n",
            '9:19: network.egress: expected none, dns, full, or {allow: ["host:port", …]}, '
            "got a mapping",
        ),
        (
            "network: {egress: some}\n",
            '9:19: network.egress: expected none, dns, full, or {allow: ["host:port", …]}, '
            'got "some"',
        ),
        (
            "network: {hosts: {db: here}}\n",
            '9:23: network.hosts.db: expected an IP address such as 10.0.2.100, got "here"',
        ),
        (
            "boot: {units: [shh]}\n",
            "9:16: boot.units[0]: expected one of ssh, getty, network, firewall, "
            "remote-filesystems, sysstat, apt-timers, maintenance-timers, random-seed, "
            "journal-on-disk, user-manager, fuse-control, configfs, huge-pages, device-mapper, "
            'loop (did you mean ssh?), got "shh"',
        ),
        (
            "user: {shell: bash -i}\n",
            "9:15: user.shell: expected a plain absolute path of the guest, such as "
            '/var/spool/app, got "bash -i"',
        ),
        (
            "scoring: {points: -1}\n",
            "9:19: scoring.points: expected a whole number from 0 to 1000000, got the number -1",
        ),
    ],
)
def test_wishes_that_cannot_be_read(demo: Path, more: str, expected: str) -> None:
    assert manifest(demo, more) == [f"puzzle.yaml:{expected}"]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("{where: outside}", "expected probe, and no run, beside where: outside"),
        (
            "{where: outside, run: checks/one.sh, probe: {tcp: 1}}",
            "expected probe, and no run, beside where: outside",
        ),
        ("{probe: {tcp: 1}}", "expected where: outside beside probe"),
        ("{}", "expected run, the check's script (or where: outside and a probe)"),
        (
            "{where: outside, user: root, probe: {tcp: 1}}",
            "expected no user beside probe: nobody runs it in the guest",
        ),
    ],
)
def test_a_check_is_a_script_or_a_probe(demo: Path, check: str, expected: str) -> None:
    entry = check.replace("{", "{id: two, title: Two, ", 1).replace(", }", "}")
    (found,) = manifest_with(demo, entry)
    assert found == f"puzzle.yaml:9:5: checks[1]: {expected}, got a mapping"


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("{}", "probe: expected one of http, tcp and dns, got a mapping"),
        ("{tcp: 1, dns: a}", "probe: expected one of http, tcp and dns, got a mapping"),
        ("{tcp: 1, status: 200}", "probe: expected http beside status, got a mapping"),
        (
            "{tcp: 1, closed: true, contains: x}",
            "probe: expected tcp, and nothing that it contains, beside closed, got a mapping",
        ),
        ("{tcp: 0}", "probe.tcp: expected a whole number from 1 to 65535, got the number 0"),
        (
            '{http: "https://a/"}',
            "probe.http: expected an address such as http://shop.example:8080/menu, "
            'got "https://a/"',
        ),
        ('{dns: "a b"}', 'probe.dns: expected a name such as printer.lan, got "a b"'),
    ],
)
def test_a_probe_is_one_question(demo: Path, probe: str, expected: str) -> None:
    entry = f"{{id: two, title: Two, where: outside, probe: {probe}}}"
    (found,) = manifest_with(demo, entry)
    assert re.sub(r"^puzzle.yaml:9:[0-9]+: ", "", found) == f"checks[1].{expected}"


def manifest_with(folder: Path, check: str) -> list[str]:
    """Say what is wrong with a manifest that has one check more."""
    (folder / "puzzle.yaml").write_text(f"{MINIMAL}  - {check}\n")
    return problems(folder)
