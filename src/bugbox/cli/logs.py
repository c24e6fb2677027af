# SPDX-License-Identifier: Apache-2.0
"""bugbox logs: what a machine, its VMM and the keeper wrote down."""

from __future__ import annotations

import time
from json import loads
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bugbox.cli.ask import ask
from bugbox.cli.out import document, printable, say
from bugbox.errors import UserError
from bugbox.paths import Home

__all__ = ["logs"]

_POLL = 0.5


def logs(
    id: str | None = None,
    /,
    *,
    console: bool = False,
    boot: bool = False,
    vmm: bool = False,
    keeper: bool = False,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    json: bool = False,
) -> int:
    """Print a log: the machine's console, if nothing else is asked for.

    Args:
        id: Which session. Without it, the only one there is.
        console: What the machine's serial console said.
        boot: The milestones of the last boot.
        vmm: What the program that runs the machine said.
        keeper: What the keeper said.
        follow: Go on as it grows.
        json: Print one JSON document.
    """
    flags = {"console": console, "boot": boot, "vmm": vmm, "keeper": keeper}
    asked = [name for name, on in flags.items() if on] or ["console"]
    if len(asked) > 1:
        raise UserError(f"one log at a time: --{' or --'.join(asked)}")
    if follow and json:
        raise UserError("--follow or --json, not both")
    if asked == ["keeper"]:  # also when the keeper is what does not work
        path = Home().keeper_log
        text = path.read_text(errors="backslashreplace") if path.exists() else ""
    else:
        answer = ask("logs", {"id": id, "which": asked[0]})
        path, text = Path(answer["path"]), str(answer["text"])
    if json:
        document({"log": asked[0], "path": str(path), "text": text})
        return 0
    say(_milestones(text) if asked == ["boot"] else printable(text).rstrip("\n"))
    if follow:
        _follow(path)
    return 0


def _milestones(text: str) -> str:
    """Write what the lifeline noted of the last boot, on the machine's clock."""
    try:
        noted = {"kernel": 0, **loads(text)["milestones"]}
        rows = sorted((int(ns), str(name)) for name, ns in noted.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return printable(text).rstrip("\n")
    lines = [f"{ns / 1e9:9.3f} s  {printable(name)}" for ns, name in rows]
    return "\n".join([*lines, "bugbox boot report says where the time went"])


def _follow(path: Path) -> None:
    """Print what is added, also after the file was turned over."""
    seen = path.stat() if path.exists() else None
    inode, offset = (seen.st_ino, seen.st_size) if seen else (0, 0)
    while True:
        time.sleep(_POLL)
        try:
            with path.open("rb") as file:
                if path.stat().st_ino != inode or path.stat().st_size < offset:
                    inode, offset = path.stat().st_ino, 0
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            continue
        offset += len(data)
        if data:
            print(printable(data), end="", flush=True)
