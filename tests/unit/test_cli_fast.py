# SPDX-License-Identifier: Apache-2.0
"""The thin commands' own reading of arguments says what the full parser says, or nothing."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pytest

from bugbox.__main__ import THIN
from bugbox.cli import app, fast

LINES = {
    "start": (
        ["read-me"],
        [],
        ["read-me", "--cold", "--json"],
        ["--json", "read-me", "--driver", "qemu"],
        ["--driver=qemu", "x", "--disk=qcow2"],
        ["x", "--seed", "7"],
        ["--image", "debian-12"],
        ["./a-folder", "--no-build", "--no-keeper"],
        ["/tmp/x"],
    ),
    "shell": (
        ["id"],
        [],
        ["--root"],
        ["id", "--user", "postmaster"],
        ["--rescue", "id"],
        ["-t", "id"],
        ["id", "-t", "--", "vim", "--", "-x"],
        ["--", "ls", "-l"],
        ["id", "--"],
    ),
    "check": ([], ["id"], ["id", "--json"], ["--no-keeper"]),
    "stop": ([], ["a"], ["a", "b", "c"], ["--all", "--yes"], ["a", "--json", "b"]),
    "ps": ([], ["--json"]),
}
MISTAKES = {
    "start": (
        ["a", "b"],
        ["--colt"],
        ["--driver"],
        ["--driver", "vmware"],
        ["x", "--seed", "seven"],
        ["--no_build"],
        ["x", "--cold=yes"],
        ["x", "--", "y"],
        ["-j"],
        ["--help"],
        ["-h"],
    ),
    "shell": (["a", "b"], ["--user"], ["-r"], ["--argv", "x"]),
    "check": (["a", "b"], ["--jsn"], ["--json", "--help"]),
    "stop": (["--al"],),
    "ps": (["a"], ["--json=1"]),
}


def command(verb: str) -> Any:
    return getattr(import_module(f"bugbox.cli.{verb}"), verb)


def called(verb: str, places: Sequence[Any], names: dict[str, Any]) -> dict[str, Any]:
    bound = inspect.signature(command(verb)).bind(*places, **names)
    bound.apply_defaults()
    return dict(bound.arguments)


def full(verb: str, words: Sequence[str]) -> dict[str, Any]:
    """Read the words as cli.app does, without running the command."""
    own, rest = fast.split(words)
    own = [fast.SHORT.get(verb, {}).get(word, word) for word in own]
    _, bound, _ = app.app.parse_args([verb, *own], exit_on_error=False, print_error=False)
    names = {**bound.kwargs, **({} if rest is None else {"argv": rest})}
    return called(verb, bound.args, names)


@pytest.mark.parametrize(("verb", "words"), [(v, w) for v in LINES for w in LINES[v]])
def test_reads_what_the_full_parser_reads(verb: str, words: list[str]) -> None:
    places, names = fast.bind(command(verb), words)
    assert called(verb, places, names) == full(verb, words)


@pytest.mark.parametrize(("verb", "words"), [(v, w) for v in MISTAKES for w in MISTAKES[v]])
def test_leaves_what_is_not_plain_to_the_full_parser(verb: str, words: list[str]) -> None:
    with pytest.raises(fast.Unparsed):
        fast.bind(command(verb), words)


def test_every_thin_command_is_tried() -> None:
    assert set(LINES) == set(MISTAKES) == set(THIN)


def test_bytes_that_are_no_text_reach_the_command() -> None:
    _, names = fast.bind(command("shell"), ["id", "--", "touch", "\udcff", ""])
    assert names == {"argv": ["touch", "\udcff", ""]}
