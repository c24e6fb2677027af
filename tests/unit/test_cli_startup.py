# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F811
"""The thin commands load no library, and little else: their start-up is what a person feels."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_world import FakeKeeper, home, keeper, report  # noqa: F401

from bugbox.cli.ask import SETTINGS
from bugbox.config import Settings

#: Bare Python loads some 35; json, socket and pathlib are most of the rest.
MOST = 125
#: Slow to load, and not needed to ask a question.
NEVER = {
    *("anyio", "argparse", "asyncio", "cyclopts", "dataclasses", "difflib", "inspect", "logging"),
    *("pydantic", "qemu", "rich", "ruamel", "subprocess", "tempfile", "textwrap"),
}

COMMANDS = {
    "start": ["start", "read-me"],
    "check": ["check"],
    "stop": ["stop", "read-me-3f9k"],
    "ps": ["ps"],
    "shell": ["shell", "--", "true"],
}


def answer(keeper: FakeKeeper) -> None:
    def exec(talk: Any, _: Any) -> None:
        talk.stream()
        talk.frame(12, {"code": 0})

    keeper.verbs |= {
        "start": lambda talk, _: talk.result({"id": "x", "state": "ready", "timings_ms": {}}),
        "check": lambda talk, _: talk.result(report(True, "passed")),
        "stop": lambda talk, _: talk.result({"stopped": ["read-me-3f9k"]}),
        "exec": exec,
    }


def loaded(words: list[str]) -> set[str]:
    # A setting that is set has to be looked at, and that loads more.
    env = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bugbox", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=env,
        timeout=60,
        check=True,
    )
    return set(re.findall(r"\| +\d+ \| +([\w.]+)$", done.stderr, re.M))


@pytest.mark.parametrize("verb", COMMANDS)
def test_thin_commands_load_little(verb: str, keeper: FakeKeeper) -> None:
    answer(keeper)
    modules = loaded(COMMANDS[verb])
    heavy = {name for name in modules if name.split(".")[0] in NEVER}
    assert not heavy, f"{verb} loads {sorted(heavy)}"
    ours = {name for name in modules if name.startswith("bugbox.")}
    above = {
        n for n in ours if n.split(".")[1] in ("session", "machine", "image", "storage", "host")
    }
    assert not above, f"{verb} loads {sorted(above)}"
    assert len(modules) < MOST, sorted(modules)


def test_the_measure_measures() -> None:
    """A command that is not thin does load what the others must not."""
    assert {"cyclopts", "pydantic"} <= {name.split(".")[0] for name in loaded(["list"])}


def test_third_party_modules_are_never_imported_at_the_top_of_the_thin_path() -> None:
    source = Path(__file__).parents[2] / "src/bugbox"
    for name in ("__main__", "cli/fast", "cli/out", "cli/outcome", "cli/ask", "cli/progress"):
        text = (source / f"{name}.py").read_text()
        assert not re.search(r"^(?:import|from) (?:cyclopts|rich|anyio|pydantic)", text, re.M), name


def test_the_variables_that_thin_commands_look_for_are_the_settings() -> None:
    assert {f"BUGBOX_{field.name.upper()}" for field in dataclasses.fields(Settings)} == {*SETTINGS}
