# SPDX-License-Identifier: Apache-2.0
"""Puzzles with one fault each, and the stage of `bugbox test` that must find it.

python -m tests.puzzles.broken_puzzles        tests each; prints where it failed and why
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bugbox.paths import Home
from bugbox.puzzle.scaffold import create
from tests.conftest import Bugbox, borrowing

__all__ = ["AT_LINT", "ON_A_MACHINE", "failures", "main", "make"]

_FOLDER = Path(__file__).parent / "broken"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

#: What lint says about it, without a machine.
AT_LINT = {
    "set-e": "set -e in a check",
    "telling-hint": "hint 1 holds a line of the solution",
    "random-in-build": "a layer is the same for all sessions",
    "alias-bomb": "anchors and aliases",
    "long-description": "larger than 64 KiB",
}
#: The stage that fails, and a part of what it says.
ON_A_MACHINE = {
    "two-layers": ("build", "built twice, two layers"),
    "spoiling-layer": ("leak", "checks/readable.sh"),
    "writing-check": ("honest", "/home/learner/last-check"),
    "breaks-again": ("reboot", "after a reboot: readable still fails"),
    "dumb-check": ("untouched", "readable fails without a sentence"),
    "passes-untouched": ("untouched", "readable passes on the untouched machine"),
}


#: Added to the end of build.sh.
_BUILDS = {
    "two-layers": "date +%N >/srv/report/made",
    "spoiling-layer": "install -m 0755 files/look /usr/local/bin/look",
}


def make(parent: Path, name: str) -> Path:
    """Write the puzzle `name` below `parent`; its folder."""
    folder = create(parent, name)
    manifest = folder / "puzzle.yaml"
    if name == "alias-bomb":
        manifest.write_text(manifest.read_text() + _BOMB)
    elif name == "long-description":
        with (folder / "description.md").open("r+b") as file:
            file.truncate(100 << 20)
    elif name in _BUILDS:
        (folder / "files").mkdir(exist_ok=True)
        shutil.copy(folder / "checks/readable.sh", folder / "files/look")
        with (folder / "build.sh").open("a") as script:
            script.write(f"{_BUILDS[name]}\n")
    else:
        shutil.copytree(_FOLDER / name, folder, dirs_exist_ok=True)
    if name == "random-in-build":
        manifest.write_text(manifest.read_text() + "variants:\n  TOKEN: {random: hex}\n")
    return folder


def failures(bugbox: Bugbox, folder: Path, stage: str) -> dict[str, str]:
    """Test a puzzle up to a stage; what failed, by stage."""
    done = bugbox("test", str(folder), "--only", stage, "--json", ok=(1,), timeout=900)
    (puzzle,) = json.loads(done.stdout)["puzzles"]
    return {
        told["stage"]: case["message"]
        for told in puzzle["stages"]
        for case in told["cases"]
        if case["status"] == "failed"
    }


def main(names: Iterable[str] = ()) -> int:
    """Print a row for each; 0 when each failed at its stage and nowhere else."""
    os.environ.setdefault("BUGBOX_TEMPLATES", "off")
    expected = {**dict.fromkeys(AT_LINT, "lint"), **{k: v[0] for k, v in ON_A_MACHINE.items()}}
    wrong = 0
    print("| broken puzzle | must fail at | failed at | which says |\n|---|---|---|---|")
    with borrowing(Home()) as home, tempfile.TemporaryDirectory() as parent:
        bugbox = Bugbox(home)
        for name in names or expected:
            failed = failures(bugbox, make(Path(parent), name), expected[name])
            wrong += set(failed) != {expected[name]}
            says = "; ".join(failed.values()).replace("\n", " ").replace(f"{parent}/", "")
            print(f"| {name} | {expected[name]} | {', '.join(failed)} | {says[:100]} |", flush=True)
        bugbox.end()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
