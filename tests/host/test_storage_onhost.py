# SPDX-License-Identifier: Apache-2.0
"""A layer unpacked on this host, by root, is the disk that a build machine makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.session import prepare
from bugbox.session.artefact import file_of, to_raw
from tests.conftest import Bugbox

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
TOOLS = ("getfacl", "getfattr", "qemu-img", "resize2fs")


def _reason() -> str:
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/loop-control").exists():
        return "needs loop devices"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"needs {', '.join(missing)}" if missing else ""


pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(_reason()), reason=_reason()),
]

#: Everything about every file; a directory's size and time are its own business.
LOOK = """
set -eu
mount -o loop,ro,noload "$1" "$2"
cd "$2"
find . -xdev ! -type d -printf '%P %y %m %U %G %s %T@ %l\\n' | sort
find . -xdev -type d -printf '%P %m %U %G\\n' | sort
getfacl -Rnps .
getfattr -hRd -m - -e hex . 2>/dev/null || true
find . -xdev -type f -newermt 2000-01-01 -path './srv/*' -exec sha256sum {} + | sort
"""


def look(image: Path, place: Path) -> list[str]:
    place.mkdir()
    argv = ["unshare", "--mount", "sh", "-c", LOOK, "sh", str(image), str(place)]
    env = {**os.environ, "PATH": PATH}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_same_as_in_a_machine(built: Home, tmp_path: Path) -> None:
    settings = load(built)
    puzzle = find("read-me", roots(settings.puzzles), Path("/"))
    parts = prepare.ensure(built, settings, puzzle)
    assert parts.layer
    raw, plain = tmp_path / "raw", tmp_path / "plain"
    ours = prepare.layer_parts(built, settings, puzzle.base)
    to_raw(ours, file_of(built, puzzle, parts.image), raw)
    convert = ["qemu-img", "convert", "-O", "raw", str(parts.layer.disk), str(plain)]
    subprocess.run(convert, check=True)
    here, machine = look(raw, tmp_path / "here"), look(plain, tmp_path / "machine")
    assert len(here) > 10_000
    assert set(here) ^ set(machine) == set()


def test_it_does_not_write_over_what_is_there(bugbox: Bugbox, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine\n")
    apply = ["layer", "apply", "read-me", "--on-host", "--output", str(tmp_path / "out")]
    bugbox(*apply, ok=(2,))
    assert (tmp_path / "out").read_text() == "mine\n"
