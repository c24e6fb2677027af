# SPDX-License-Identifier: Apache-2.0
"""What can be said about one script without running it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bugbox.errors import CommandFailed, MissingTool
from bugbox.host import proc
from bugbox.puzzle.script import Script
from bugbox.puzzle.text import one_line

__all__ = ["ScriptFinding", "script_findings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFinding:
    """One thing wrong with a script, at a line of it."""

    level: Literal["error", "warning"]
    rule: str
    line: int
    message: str


_SET_E = re.compile(r"(^|[;&|({]|\b(then|do|else)\b)\s*set\s+(-[a-df-z]*e|-o\s+errexit)")
_CHATTR = re.compile(r"(^|[;&|({]|\b(then|do|else)\b)\s*chattr\s+(-\S+\s+)*[+=][A-Za-z]")
_SPEAKS = re.compile(r"\b(fail|echo|printf|cat)\b")
_SHELL = re.compile(r"#!\s*(/usr)?/bin/(env\s+)?(?P<name>\S+)")


def script_findings(
    script: Script, *, injected: bool, check: bool = False, layer: bool = False
) -> Iterator[ScriptFinding]:
    """Look at a script; an injected one is run by bugbox's own sh, whatever its first line.

    `layer`: what it changes must fit into a layer.
    """
    text = script.text.decode("utf-8", "replace")
    lines = text.split("\n")
    yield from _first_line(lines[0], injected)
    carriage = next((n for n, line in enumerate(lines, 1) if line.endswith("\r")), 0)
    if carriage:
        message = "lines end with CR LF; the shell takes the CR for a part of the command"
        yield ScriptFinding(level="error", rule="crlf", line=carriage, message=message)
        return
    if check:
        yield from _check(lines)
    if layer:
        yield from _lost(lines)
    yield from _syntax(script, lines[0], injected)


def _first_line(first: str, injected: bool) -> Iterator[ScriptFinding]:
    if not first.startswith("#!"):
        message = "no #! line, such as #!/bin/sh"
        yield ScriptFinding(level="warning", rule="shebang", line=1, message=message)
    elif injected and _shell(first) not in ("sh", "ash", "dash"):
        message = f"it is run by bugbox's own sh in the guest, not by {_shell(first)}"
        yield ScriptFinding(level="warning", rule="shebang", line=1, message=message)


_HERE = re.compile(r"<<(-?)\s*(['\"])([A-Za-z_][A-Za-z0-9_]*)\2")


def _own(lines: list[str]) -> Iterator[str]:
    """Yield the lines, those of quoted here-documents empty: they are another program's."""
    ends: list[tuple[bool, str]] = []
    for line in lines:
        if not ends:
            yield line
            ends = [(bool(dash), word) for dash, _, word in _HERE.findall(line)]
            continue
        tabs, word = ends[0]
        if (line.lstrip("\t") if tabs else line) == word:
            ends.pop(0)
        yield ""


def _check(lines: list[str]) -> Iterator[ScriptFinding]:
    code = [line.split(" #")[0] for line in _own(lines)]
    for number, line in enumerate(code, 1):
        first = number == 1 and re.match(r"#!.*\s-[a-z]*e", line)
        if first or (not line.lstrip().startswith("#") and _SET_E.search(line)):
            message = "set -e in a check: any failing command would end it without a sentence"
            yield ScriptFinding(level="error", rule="set-e", line=number, message=message)
    speaking = [line for line in code if not line.lstrip().startswith("#")]
    if not any(_SPEAKS.search(line) for line in speaking):
        message = 'it never says why: use `fail "A sentence for the learner."`'
        yield ScriptFinding(level="error", rule="sentence", line=1, message=message)


def _lost(lines: list[str]) -> Iterator[ScriptFinding]:
    """Find what a build can do and no layer can carry."""
    for number, line in enumerate(lines, 1):
        if not line.lstrip().startswith("#") and _CHATTR.search(line):
            message = "no layer can carry chattr's flags: set them in break.sh"
            yield ScriptFinding(level="warning", rule="chattr", line=number, message=message)


def _shell(first: str) -> str:
    match = _SHELL.match(first.strip())
    return match["name"] if match else first[2:].strip()


def _syntax(script: Script, first: str, injected: bool) -> Iterator[ScriptFinding]:
    """Let a shell read it: the one that will run it, or the nearest that is here."""
    shells: tuple[tuple[str, ...], ...] = (("busybox", "sh"), ("dash",), ("sh",))
    if not injected and _shell(first) == "bash":
        shells = (("bash",),)
    elif not injected and _shell(first) != "sh":
        return
    for shell in shells:
        try:
            proc.run([*shell, "-n", script.file], timeout=10, cwd=Path("/"))
        except MissingTool:
            continue
        except CommandFailed as error:
            yield _syntax_error(error, script)
        return


def _syntax_error(error: CommandFailed, script: Script) -> ScriptFinding:
    said = error.stderr.strip().splitlines()
    complaint = (said[0] if said else error.message).replace(f"{script.file}: ", "")
    place = re.match(r"(?:line )?([0-9]+): ", complaint)
    return ScriptFinding(
        level="error",
        rule="syntax",
        line=int(place[1]) if place else 1,
        message=one_line(complaint[place.end() :] if place else complaint),
    )
