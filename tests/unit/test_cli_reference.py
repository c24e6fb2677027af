# SPDX-License-Identifier: Apache-2.0
"""docs/reference/cli.md is what the commands say; every verb of the contract is known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bugbox.cli.app import LATER, commands

ROOT = Path(__file__).parents[2]

#: Every verb of the contract.
CONTRACT = {
    *("list", "show", "play", "check", "hint", "solution", "undo", "checkpoint", "reset", "fork"),
    *("start", "shell", "cp", "forward", "console", "logs", "ps", "pause", "resume", "stop"),
    *("doctor", "debug", "gc", "new", "lint", "build", "dev", "diff", "test", "schema", "import"),
    *("pack", "add", "bundle", "image", "kernel", "layer", "boot", "serve", "keeper", "lab"),
    "completion",
}


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bugbox.cli.reference"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    page = (ROOT / "docs/reference/cli.md").read_text()
    assert done.stdout == page, "run `make docs`"


def test_every_verb_of_the_contract_is_there_or_named_as_coming() -> None:
    there = {name.split()[0] for name in commands()}
    assert there.isdisjoint(name for name in LATER if " " not in name)
    assert there | {name for name in LATER if " " not in name} == CONTRACT


def test_no_help_text_names_what_is_not_there() -> None:
    page = (ROOT / "docs/reference/cli.md").read_text().split("## Not there yet")[0]
    for verb in re.findall(r"bugbox ([a-z]+)", page):
        assert verb in {name.split()[0] for name in commands()}, verb
