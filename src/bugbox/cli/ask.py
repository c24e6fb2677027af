# SPDX-License-Identifier: Apache-2.0
"""Ask the keeper, with progress on standard error; the words that name puzzles and sessions.

Standard library only: on the path of the thin commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bugbox.cli.packed import is_packed, taken_in
from bugbox.cli.progress import Progress
from bugbox.errors import UserError
from bugbox.keeper import client
from bugbox.keeper.start import locked
from bugbox.paths import Home, shipped_puzzles

__all__ = ["SETTINGS", "ask", "check_settings", "escape_setting", "idle", "puzzle_ref"]

#: The variables that are settings: config.Settings, which the thin commands do not load.
SETTINGS = tuple(
    f"BUGBOX_{name}"
    for name in (
        "DRIVER", "ACCEL", "DISK", "DEBIAN_MIRROR", "QEMU", "TIMEOUT_FACTOR", "PUZZLES",
        "KEEPER_IDLE", "UID_BASE", "ESCAPE", "TEMPLATES", "TEMPLATES_SPACE", "STANDBY",
        "STANDBY_MOST", "STANDBY_MEMORY", "OPEN_NETWORK", "IDLE_PAUSE", "MEMORY_RESERVE",
        "NETWORK_POOL", "NETWORK_DNS", "FIRECRACKER", "JAILER", "FIRECRACKER_JAIL", "LIMITS",
    )
)  # fmt: skip


def ask(verb: str, args: Mapping[str, Any] | None = None, *, alone: bool = False) -> Any:
    """Return the keeper's answer; with `alone` this process does it without a keeper."""
    home = Home()
    with Progress() as progress:
        if not alone:
            return client.request(home, verb, args, progress)
        from bugbox.cli import alone as own  # loads everything: only when asked for

        return own.request(home, verb, args or {}, progress)


def idle(home: Home) -> bool:
    """Whether there is nothing to ask about: no keeper, and no session on the disk."""
    try:
        return not locked(home) and not any(home.sessions.iterdir())
    except FileNotFoundError:
        return True


def check_settings() -> None:
    """Raise UserError when a setting is wrong; quick where nothing is set."""
    home = Home()
    if home.settings.exists() or any(os.environ.get(name) for name in SETTINGS):
        from bugbox.config import (
            load,
        )  # TOML and dataclasses: only where there is something to read

        load(home)


def escape_setting(home: Home) -> str:
    """Return the setting `escape` without loading the settings where nothing sets it."""
    named = os.environ.get("BUGBOX_ESCAPE")
    if named or not home.settings.exists():
        return named or "^]"
    from bugbox.config import load  # TOML and dataclasses: only where a file asks for them

    return load(home).escape


def puzzle_ref(name: str | None) -> str:
    """Return what the keeper understands: an absolute folder, or a name of the catalogue.

    The keeper stands in another folder than we, and its BUGBOX_PUZZLES may be another.
    """
    if name is None:
        if not Path("puzzle.yaml").exists():
            raise UserError(
                "which puzzle? this folder has no puzzle.yaml",
                hint="bugbox list shows the catalogue",
            )
        return str(Path.cwd())
    if is_packed(name):
        return taken_in(name)
    if "/" in name or name in (".", ".."):
        return os.path.abspath(name)  # noqa: PTH100  (symbolic links are the catalogue's business)
    extra = os.environ.get("BUGBOX_PUZZLES", "").split(":")
    roots = [Path(root) for root in extra if root] + [shipped_puzzles(), Home().puzzles, Path()]
    for root in roots:
        if (root / name / "puzzle.yaml").exists():
            return os.path.abspath(root / name)  # noqa: PTH100
    return name
