# SPDX-License-Identifier: Apache-2.0
"""bugbox debug: how a machine is run, and a bundle of all there is to know about it."""

from __future__ import annotations

import io
import json as jsonlib
import shlex
import tarfile
import time
from pathlib import Path
from typing import Any

from bugbox import __version__
from bugbox.cli.ask import ask
from bugbox.cli.out import document, printable, say
from bugbox.paths import Home

__all__ = ["debug"]

#: The logs of a session that go into the bundle.
_LOGS = ("console", "boot", "vmm", "keeper")


def debug(id: str | None = None, /, *, json: bool = False) -> int:
    """Print the exact command line of a machine, and write a bundle for a bug report.

    Args:
        id: Which session. Without it, the only one there is.
        json: Print one JSON document.
    """
    facts = ask("debug", {"id": id})
    name = str(facts["record"]["id"])
    bundle = _bundle(name, facts)
    if json:
        document({**facts, "bundle": str(bundle)})
        return 0
    summary = facts.get("summary", {})
    why = printable(str(summary.get("reason") or ""))
    say(f"{name}: {summary.get('state', '?')} {why}".rstrip())
    say(f"folder: {facts['folder']}")
    say(f"bundle: {bundle}")
    say()
    say(printable(shlex.join(str(word) for word in _argv(facts))))
    return 0


def _argv(facts: dict[str, Any]) -> list[Any]:
    told = facts.get("argv", [])
    found = told.get("argv", []) if isinstance(told, dict) else told
    return found if isinstance(found, list) else []


def _bundle(id: str, facts: dict[str, Any]) -> Path:
    folder = Home().reports
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime(f"debug-{id}-%Y%m%d-%H%M%S.tar.gz")
    with tarfile.open(path, "w:gz") as bundle:
        _add(bundle, "version.txt", f"bugbox {__version__}\n")
        _add(bundle, "facts.json", jsonlib.dumps(facts, indent=2))
        for which in _LOGS:
            _add(bundle, f"{which}.log", str(ask("logs", {"id": id, "which": which})["text"]))
    return path


def _add(bundle: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode(errors="backslashreplace")
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(data), int(time.time())
    bundle.addfile(entry, io.BytesIO(data))
