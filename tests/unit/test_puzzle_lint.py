# SPDX-License-Identifier: Apache-2.0
"""Each rule of lint finds what it is for, and the catalogue has nothing to find."""

import shutil
from pathlib import Path

import pytest

from bugbox.errors import UserError
from bugbox.paths import shipped_puzzles
from bugbox.puzzle.lint import Finding, lint
from bugbox.puzzle.scaffold import TEMPLATES, create


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create(tmp_path, "demo")


def findings(folder: Path) -> list[tuple[str, str, str, int]]:
    return [
        (each.level, each.rule, str(each.file.relative_to(folder)), each.line)
        for each in lint(folder)
    ]


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_new_writes_is_clean(tmp_path: Path, template: str) -> None:
    assert [str(each) for each in lint(create(tmp_path, "demo", template))] == []


@pytest.mark.parametrize("manifest", sorted(shipped_puzzles().glob("*/puzzle.yaml")))
def test_the_catalogue_is_clean(manifest: Path) -> None:
    assert [str(each) for each in lint(manifest.parent)] == []


def test_a_finding_is_printed_like_a_compilers(folder: Path) -> None:
    rewrite(folder / "puzzle.yaml", "title: A", "ttle: A")
    first = lint(folder)[0]
    assert str(first).startswith(f"{folder}/puzzle.yaml:2:1: error: title: this key is missing")
    assert str(first).endswith(" [definition]")
    assert first.as_json()["line"] == 2 and first.as_json()["level"] == "error"
    assert [each.line for each in lint(folder)] == [2, 5]


@pytest.mark.parametrize(
    "line",
    [
        "set -e",
        "set -eu",
        "set -ue",
        "set -o errexit",
        "true; set -e",
        "if x; then set -e; fi",
        "  set -euo pipefail",
    ],
)
def test_set_e_in_a_check(folder: Path, line: str) -> None:
    rewrite(folder / "checks/private.sh", "for path", f"{line}\nfor path")
    assert findings(folder) == [("error", "set-e", "checks/private.sh", 3)]


def test_set_e_in_the_first_line_and_elsewhere(folder: Path) -> None:
    rewrite(folder / "checks/private.sh", "#!/bin/sh\n", "#!/bin/sh -eu\n")
    assert findings(folder) == [("error", "set-e", "checks/private.sh", 1)]
    rewrite(folder / "checks/private.sh", "#!/bin/sh -eu\n", "#!/bin/sh\n# never set -e here\n")
    rewrite(folder / "checks/private.sh", "for path", "set -u; set -f\nfor path")
    assert findings(folder) == []  # build.sh and solve.sh have it, rightly


def test_what_another_program_reads_is_not_the_checks_own(folder: Path) -> None:
    """A here-document in quotes; the check's own lines begin again after it."""
    rewrite(
        folder / "checks/private.sh", "for path", "bash <<'END' || fail x\nset -e\nEND\nfor path"
    )
    assert findings(folder) == []
    rewrite(folder / "checks/private.sh", "END\nfor", "END\nset -e\nfor")
    assert findings(folder) == [("error", "set-e", "checks/private.sh", 6)]


def test_what_a_learner_types_is_read_by_the_shell_it_names(folder: Path) -> None:
    rewrite(folder / "solve.sh", "#!/bin/sh", "#!/bin/bash")
    (folder / "solve.sh").write_text((folder / "solve.sh").read_text() + "x=(1 2); chattr +i a\n")
    assert findings(folder) == []


def test_a_check_that_never_says_why(folder: Path) -> None:
    (folder / "checks/private.sh").write_text("#!/bin/sh\n# fail is not called\n[ -e /x ]\n")
    assert findings(folder) == [("error", "sentence", "checks/private.sh", 1)]


@pytest.mark.skipif(not (shutil.which("busybox") or shutil.which("dash")), reason="no shell")
def test_a_syntax_error_has_its_line(folder: Path) -> None:
    rewrite(folder / "ready.sh", "[ -s", "if [ -s")
    assert [each[:3] for each in findings(folder)] == [("error", "syntax", "ready.sh")]
    assert lint(folder)[0].line >= 3
    assert str(folder) not in lint(folder)[0].message


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_build_is_read_by_the_shell_it_names(folder: Path) -> None:
    (folder / "build.sh").write_text("#!/bin/bash\nall=(a b)\necho ${all[0]}\n")
    assert findings(folder) == []
    (folder / "build.sh").write_text("#!/usr/bin/python3\nif True: print(1)\n")
    assert findings(folder) == []
    (folder / "build.sh").write_text("#!/bin/bash\nif\n")
    assert [each[1] for each in findings(folder)] == ["syntax"]


def test_flags_that_no_layer_can_carry(folder: Path) -> None:
    (folder / "build.sh").write_text(
        "#!/bin/sh\n# chattr +i x\ncd /srv && chattr -R +i x\nlsattr x\n"
    )
    assert findings(folder) == [("warning", "chattr", "build.sh", 3)]
    (folder / "build.sh").rename(folder / "break.sh")
    assert findings(folder) == []


def test_no_script_is_run(folder: Path, tmp_path: Path) -> None:
    for file in folder.rglob("*.sh"):
        file.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nfail 'A sentence.'\n")
    lint(folder)
    assert not (tmp_path / "ran").exists()


def test_carriage_returns(folder: Path) -> None:
    text = (folder / "checks/private.sh").read_bytes()
    (folder / "checks/private.sh").write_bytes(text.replace(b"\n", b"\r\n"))
    assert findings(folder) == [("error", "crlf", "checks/private.sh", 1)]


def test_first_lines(folder: Path) -> None:
    rewrite(folder / "ready.sh", "#!/bin/sh\n", "")
    rewrite(folder / "checks/private.sh", "#!/bin/sh", "#!/usr/bin/env python3")
    assert findings(folder) == [
        ("warning", "shebang", "checks/private.sh", 1),
        ("warning", "shebang", "ready.sh", 1),
    ]


def test_a_wrong_fix_names_a_check_that_exists(folder: Path) -> None:
    rewrite(folder / "wrong.d/chmod-777.sh", "refused by: private", "refused by: privat")
    assert findings(folder) == [("error", "refused-by", "wrong.d/chmod-777.sh", 2)]
    assert lint(folder)[0].message == "no check has the id privat; did you mean private?"


def test_a_hint_with_a_line_of_the_solution(folder: Path) -> None:
    (folder / "hints/2.md").write_text("Type  `chmod u+x\n/srv/report`.\n")
    found = lint(folder)
    assert [(each.level, each.rule) for each in found] == [("error", "spoiler")]
    assert found[0].message == 'hint 2 holds a line of the solution: "chmod u+x /srv/report"'


def test_what_is_missing_is_a_warning(folder: Path) -> None:
    shutil.rmtree(folder / "wrong.d")
    for name in ("solve.sh", "build.sh"):
        (folder / name).unlink()
    rewrite(folder / "puzzle.yaml", "hints:", "hints: []\n#")
    text = (folder / "puzzle.yaml").read_text().split("#\n")[0]
    (folder / "puzzle.yaml").write_text(text.replace("  - {title", "#"))
    shutil.rmtree(folder / "hints")
    assert {each[:2] for each in findings(folder)} == {
        ("warning", "no-solution"),
        ("warning", "no-wrong-fix"),
        ("warning", "no-hints"),
        ("warning", "nothing-broken"),
    }


def test_placeholders_and_files_nobody_reads(folder: Path) -> None:
    (folder / "description.md").write_text("Ask {{SERVICE}}.\n")
    for name in ("reddy.sh", "checks/old.sh", "hints/3.md"):
        (folder / name).write_text("x\n")
    found = lint(folder)
    assert [(each.level, each.rule) for each in found] == [
        ("error", "placeholder"),
        ("warning", "unread"),
        ("warning", "unread"),
        ("warning", "unread"),
    ]
    assert found[-1].message == "nothing reads reddy.sh; did you mean ready.sh?"


def test_neighbours(folder: Path) -> None:
    with (folder / "puzzle.yaml").open("a") as file:
        file.write("next: [read-mee]\nrequires: [demo]\n")
    found = lint(folder, known=["read-me"])
    assert [(each.level, each.rule) for each in found] == [
        ("error", "neighbour"),
        ("warning", "neighbour"),
    ]
    assert found[1].message == "next: no puzzle is called read-mee; did you mean read-me?"
    lines = (folder / "puzzle.yaml").read_text().splitlines()
    assert lines[found[1].line - 1].startswith("next:")
    assert [each.rule for each in lint(folder)] == ["neighbour"]


@pytest.mark.parametrize("name", ["../x", "Demo", "a", "x" * 64, "a b", "", "a/b", "-x", "x\n"])
def test_new_refuses_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="2 to 63 lower-case letters"):
        create(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_new_helps_with_a_name_and_overwrites_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        create(tmp_path, "My Puzzle")
    assert caught.value.hint == "such as my-puzzle"
    (tmp_path / "demo").symlink_to("nowhere")
    with pytest.raises(UserError, match="already there"):
        create(tmp_path, "demo")
    with pytest.raises(UserError, match="cannot write in"):
        create(tmp_path / "none", "demo")
    assert [each.name for each in tmp_path.iterdir()] == ["demo"]


def test_a_finding_is_one_safe_line() -> None:
    finding = Finding(level="error", rule="x", file=Path("/a\x1b"), message="b\nc\x07")
    assert str(finding) == "/a\\x1b:1:1: error: b c\\x07 [x]"


def test_a_command_that_gives_a_root_shell(folder: Path) -> None:
    text = (folder / "puzzle.yaml").read_text()
    wish = "user: {sudo: limited, commands: [%s]}\n"
    (folder / "puzzle.yaml").write_text(
        text + wish % "/usr/bin/vim.tiny, /usr/bin/less /a, /bin/ls"
    )
    line = len(text.splitlines()) + 1
    assert findings(folder) == [("warning", "sudo-shell", "puzzle.yaml", line)]


def test_checks_by_themselves_that_copy_the_machine(folder: Path) -> None:
    text = (folder / "puzzle.yaml").read_text()
    run = next(line for line in text.splitlines() if "run: checks/" in line).split()[-1]
    again = f"checks:\n  - {{id: again, title: Again, run: {run}, where: clone}}\n"
    policy = "check_policy: {trigger: auto}\n"
    (folder / "puzzle.yaml").write_text(policy + text.replace("checks:\n", again))
    assert findings(folder) == [("warning", "auto-clone", "puzzle.yaml", 1)]


@pytest.mark.parametrize("egress", ["none", "full", "dns", '{allow: ["deb.example:80"]}'])
def test_what_reaches_out_is_not_asked_from_outside(folder: Path, egress: str) -> None:
    text = (folder / "puzzle.yaml").read_text()
    probe = "checks:\n  - {id: page, title: P, where: outside, probe: {tcp: 80}}\n"
    assert "\nnetwork:" not in text
    text = f"network: {{egress: {egress}}}\n" + text.replace("checks:\n", probe)
    (folder / "puzzle.yaml").write_text(text)
    refused = [("warning", "egress-probe", "puzzle.yaml", 1)]
    assert findings(folder) == ([] if egress in ("none", "full") else refused)
