# SPDX-License-Identifier: Apache-2.0
"""What a manifest alone changes in the layer: names, mounts, units, a shell, and what is kept."""

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest
from test_puzzle_definition import MINIMAL, script

from bugbox.errors import DefinitionError
from bugbox.image import source
from bugbox.puzzle.definition import Puzzle, load
from bugbox.puzzle.inputs import NEVER, layer_key, never, pack
from bugbox.puzzle.machine_keys import KEPT
from bugbox.puzzle.setup import OWN, wrapper
from bugbox.puzzle.units import SERVICES

WISHES = """\
network: {hosts: {db.internal: 10.0.2.100, six: "fd00::1"}}
machine: {disks: [{name: spool, size: 1MiB, fs: ext4, mount: /var/spool/app}]}
boot: {units: [ssh, user-manager]}
user: {shell: /bin/dash, sudo: none}
"""
RULES = {rule.unit: rule for rule in source.load("debian-12").units}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    (folder / "checks").mkdir(parents=True)
    (folder / "puzzle.yaml").write_text(MINIMAL)
    (folder / "description.md").write_text("It is broken.\n")
    script(folder / "checks/one.sh")
    return folder


def wishing(folder: Path, more: str) -> Puzzle:
    (folder / "puzzle.yaml").write_text(MINIMAL + more)
    return load(folder)


def packed(puzzle: Puzzle) -> dict[str, tuple[int, str]]:
    out = io.BytesIO()
    pack(puzzle, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {
            member.name: (member.mode, (tar.extractfile(member) or io.BytesIO()).read().decode())
            for member in tar
        }


def test_a_puzzle_that_asks_for_nothing_is_built_as_ever(demo: Path) -> None:
    assert not load(demo).builds
    own = script(demo / "build.sh", "#!/bin/sh\necho own\n")
    puzzle = load(demo)
    assert puzzle.builds
    assert packed(puzzle) == {"build.sh": (0o755, own.read_text())}


def test_wishes_alone_make_a_layer(demo: Path) -> None:
    puzzle = wishing(demo, WISHES)
    assert puzzle.build is None and puzzle.builds
    mode, text = packed(puzzle)["build.sh"]
    assert mode == 0o755 and OWN not in text
    for line in (
        "echo '10.0.2.100 db.internal' >>/etc/hosts",
        "echo 'fd00::1 six' >>/etc/hosts",
        "mkdir -p /var/spool/app",
        "echo 'LABEL=spool /var/spool/app ext4 defaults 0 0' >>/etc/fstab",
        "systemctl --quiet unmask ssh.service",
        "systemctl --quiet enable ssh.service",
        "systemctl --quiet unmask user@.service",
        "usermod --shell /bin/dash learner",
        "rm -f /etc/sudoers.d/learner",
    ):
        assert line in text.splitlines(), line
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_the_puzzles_own_script_runs_in_the_middle(demo: Path) -> None:
    own = script(demo / "build.sh", "#!/bin/bash\necho own\n")
    members = packed(wishing(demo, WISHES))
    assert members[OWN] == (0o755, own.read_text())
    lines = members["build.sh"][1].splitlines()
    assert lines.index("systemctl --quiet enable ssh.service") < lines.index(f"./{OWN}")
    assert lines.index(f"./{OWN}") < lines.index("usermod --shell /bin/dash learner")


def test_what_sudo_runs_is_a_file_of_its_own(demo: Path, tmp_path: Path) -> None:
    commands = "[/usr/bin/systemctl restart app.service, '/bin/date -s a,b:c=d', /usr/bin/less]"
    text = packed(wishing(demo, f"user: {{sudo: limited, commands: {commands}}}\n"))["build.sh"][1]
    written = tmp_path / "sudoers"
    line = next(each for each in text.splitlines() if each.startswith("printf"))
    place = "/etc/sudoers.d/learner-commands"
    subprocess.run(["sh", "-c", line.replace(place, str(written))], check=True)
    assert written.read_text() == (
        "learner ALL=(root) NOPASSWD: /usr/bin/systemctl restart app.service, "
        "/bin/date -s a\\,b\\:c\\=d, /usr/bin/less\n"
    )
    lines = text.splitlines()
    # The way to all of it is gone before the way to some of it is there.
    assert lines.index("rm -f /etc/sudoers.d/learner") < lines.index(line)
    assert lines[-1] == f"visudo --check --quiet --file={place}"


def test_each_wish_is_in_the_layers_key(demo: Path) -> None:
    keys = {layer_key(wishing(demo, more), "base") for more in ("", *WISHES.splitlines())}
    keys.add(layer_key(wishing(demo, "boot: {units: [ssh]}\n"), "base"))
    assert len(keys) == 6
    script(demo / "build.sh", "#!/bin/sh\necho own\n")
    assert layer_key(wishing(demo, WISHES), "base") not in keys


def test_what_is_kept_is_left_out_of_what_never_is_in_a_layer(demo: Path) -> None:
    puzzle = wishing(demo, "build: {keep: [/var/lib/apt/lists, /etc/machine-id]}\n")
    assert set(NEVER) - set(never(puzzle)) == {"var/lib/apt/lists/*", "etc/machine-id"}
    assert layer_key(puzzle, "base") != layer_key(wishing(demo, ""), "base")


def test_all_that_can_be_kept_is_something_that_is_left_out() -> None:
    patterns = {f"/{name.removesuffix('/*')}" for name in NEVER}
    assert set(KEPT) <= patterns
    # These are no part of the disk at all.
    assert patterns - set(KEPT) == {"/puzzle", "/run", "/tmp", "/proc", "/sys", "/dev"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_name_of_a_unit_can_be_asked_for(demo: Path, name: str) -> None:
    text = wrapper(wishing(demo, f"boot: {{units: [{name}]}}\n").manifest, own=False).decode()
    asked = set(re.findall(r"systemctl --quiet enable (\S+)", text))
    assert asked == set(SERVICES[name]) and asked <= set(RULES)


def test_further_folders_lie_beside_build_sh(demo: Path) -> None:
    script(demo / "build.sh", "#!/bin/sh\necho own\n")
    for name in ("files", "src"):
        (demo / name).mkdir()
        (demo / name / "a").write_text(name)
    keys = {layer_key(wishing(demo, more), "base") for more in ("", "build: {inputs: [files]}\n")}
    assert len(keys) == 1, "files always comes along"
    puzzle = wishing(demo, "build: {inputs: [files, src]}\n")
    assert list(packed(puzzle)) == ["build.sh", "files", "files/a", "src", "src/a"]
    before = layer_key(puzzle, "base")
    assert before not in keys
    (demo / "src" / "a").write_text("another")
    assert layer_key(load(demo), "base") != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "nowhere: expected a folder"),
        ("checks", "expected a folder of the puzzle's beside files"),
        ("../out", "expected a folder of the puzzle's beside files"),
        ("linked", "linked: expected a folder"),
        ("links", "a symbolic link; only files/ may hold one"),
    ],
)
def test_a_folder_that_no_build_gets(demo: Path, name: str, said: str) -> None:
    (demo / "linked").symlink_to("/etc")
    (demo / "links").mkdir()
    (demo / "links" / "out").symlink_to("/etc/passwd")
    with pytest.raises(DefinitionError) as caught:
        wishing(demo, f"build: {{inputs: [{name}]}}\n")
    assert said in caught.value.message


def test_other_folders_for_solutions(demo: Path) -> None:
    script(demo / "ways/second.sh", "#!/bin/sh\ntrue\n")
    script(demo / "no-fix/one.sh", "#!/bin/sh\ntrue\n")
    puzzle = wishing(demo, "solution: {alternatives: ways}\ntest: {wrong: no-fix}\n")
    assert [each.name for each in puzzle.solutions] == ["ways/second.sh"]
    assert [each.name for each in puzzle.wrong] == ["no-fix/one.sh"]
