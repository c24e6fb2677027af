# SPDX-License-Identifier: Apache-2.0
"""Everything a state directory holds of this host: what sessions may leave behind."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from bugbox.errors import BugboxError
from bugbox.keeper.client import request
from bugbox.paths import Home

__all__ = ["Census", "census", "keeper_pid", "more"]


Census = Mapping[str, Counter[str]]


def census(home: Home) -> Census:
    """Name what belongs to `home`, by kind."""
    ours = (f"{home.root}/", f"{home.runtime}/")
    keeper = Path(f"/proc/{keeper_pid(home)}")
    loops = Path("/sys/block").glob("loop*/loop/backing_file")
    return {
        "processes": Counter(name for pid in _pids() if (name := _of(pid, home, ours))),
        "the keeper's descriptors": Counter(_targets(keeper / "fd")),
        "the keeper's threads": Counter("thread" for _ in _entries(keeper / "task")),
        "sockets with a name": Counter(_lines(Path("/proc/net/unix"), ours)),
        "loop devices": Counter(line for path in loops for line in _lines(path, ours)),
        "mounts": Counter(_lines(Path("/proc/self/mountinfo"), ours)),
        "files": Counter(_files(home.root)),
        "files at run time": Counter(_files(home.runtime)),
    }


def more(before: Census, after: Census) -> dict[str, list[str]]:
    """Return of what there is more than before, and what was not there then."""
    grown = {kind: found - before[kind] for kind, found in after.items()}
    return {
        kind: [*names.elements()]
        for kind, names in grown.items()
        if after[kind].total() > before[kind].total()
    }


def keeper_pid(home: Home) -> int:
    """Return the keeper's pid; 0: none runs."""
    try:
        return int(request(home, "ping", start=False)["pid"])
    except (BugboxError, OSError):
        return 0


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())


def _of(pid: int, home: Home, ours: tuple[str, str]) -> str:
    """Return what a process is called that was started for this home or has a file of it open."""
    if pid == os.getpid():
        return ""
    folder = Path(f"/proc/{pid}")
    try:
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        env = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has ended meanwhile, or is nobody's
        return ""
    known = [*words, *_targets(folder / "fd")]
    if f"BUGBOX_HOME={home.root}" in env or any(name in text for name in ours for text in known):
        return f"{pid} {' '.join(words)[:100]}"
    return ""


def _targets(folder: Path) -> list[str]:
    found = []
    for link in _entries(folder):
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return found


def _entries(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


def _lines(path: Path, ours: tuple[str, str]) -> list[str]:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:  # a loop device that was freed between two looks
        return []
    return [line for line in lines if any(name in line for name in ours)]


def _files(folder: Path) -> list[str]:
    """Name all below a folder, folders too; what it only borrows by a link counts as one."""
    return [
        str(Path(root, name))
        for root, folders, files in os.walk(folder)
        for name in (*folders, *files)
    ]
