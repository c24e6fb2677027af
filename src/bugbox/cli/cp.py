# SPDX-License-Identifier: Apache-2.0
"""bugbox cp: files between here and a machine."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bugbox.cli.out import document
from bugbox.cli.transfer import receive, send
from bugbox.errors import UserError

__all__ = ["cp"]

#: `-` alone is a word, not an option.
_Word = Annotated[str, Parameter(allow_leading_hyphen=True)]


def cp(source: _Word, target: _Word, /, *, json: bool = False) -> int:
    """Copy a file into a machine, or out of it.

    One of the two is ID:PATH; with a bare `:PATH` it is the only session's. A copy into the machine
    is the learner's, one out of it may be of any file: it is read as root.

    Args:
        source: What is copied; `-` is standard input.
        target: Where to; a folder takes the file under its own name; `-` is standard output.
        json: Print one JSON document.
    """
    ours, theirs = _remote(source), _remote(target)
    if (ours is None) == (theirs is None):
        raise UserError(
            "one of the two has to be ID:PATH", hint="bugbox cp notes.txt read-me-3f9k:/tmp/"
        )
    if json and target == "-":
        raise UserError("--json and `-` would both write to standard output", hint="one of the two")
    if theirs is not None:
        id, path = theirs
        size = _put(source, id, path)
    else:
        assert ours is not None
        size = _get(*ours, target)
    if json:
        document({"source": source, "target": target, "bytes": size})
    return 0


def _remote(word: str) -> tuple[str | None, str] | None:
    """Part ID:PATH; None for a path of ours (one with a slash before any colon)."""
    id, colon, path = word.partition(":")
    if not colon or "/" in id or word.startswith("."):
        return None
    if not path:
        raise UserError(f"{word}: which path in the machine?")
    return id or None, path


def _put(source: str, id: str | None, path: str) -> int:
    if source == "-":
        with tempfile.TemporaryFile() as held:  # its size has to be known first
            shutil.copyfileobj(sys.stdin.buffer, held)
            return send(id, path, held, 0o644)
    file = Path(source)
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{source} is not a file", hint="pack a folder with tar first")
        if path.endswith("/"):
            path += file.name
        with file.open("rb") as opened:
            return send(id, path, opened, stat.S_IMODE(status.st_mode))
    except FileNotFoundError:
        raise UserError(f"{source}: no such file") from None


def _get(id: str | None, path: str, target: str) -> int:
    if target == "-":
        return receive(id, path, sys.stdout.buffer)
    file = Path(target)
    if file.is_dir():
        file /= path.rstrip("/").rsplit("/", 1)[-1]
    elif target.endswith("/"):
        raise UserError(f"{target}: no such folder")
    # Beside the target, so that a copy that breaks off leaves what was there before.
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as opened:
            size = receive(id, path, opened)
        part.rename(file)
    except FileNotFoundError:
        raise UserError(f"{file.parent}: no such folder") from None
    finally:
        part.unlink(missing_ok=True)
    return size
