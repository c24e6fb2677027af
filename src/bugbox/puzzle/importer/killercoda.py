# SPDX-License-Identifier: Apache-2.0
"""Read a scenario in Killercoda's folder format, which was Katacoda's: index.json and its files.

Everything is data from a stranger: nothing is run, every file is read inside the folder and to a
limit, and what is not as expected is noted and left out.
"""

from __future__ import annotations

import fnmatch
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.errors import DefinitionError, NotFound
from bugbox.puzzle.folder import MAX_TEXT, Folder
from bugbox.puzzle.importer.report import Notes
from bugbox.puzzle.keys import path_trouble
from bugbox.puzzle.yaml_source import Source

__all__ = ["INDEX", "Asset", "Part", "Scenario", "read"]

INDEX = "index.json"
_MAX_INDEX = 256 << 10
_MAX_STEPS = 64
_MAX_SCRIPT = 40 << 10
_MAX_ASSETS, _MAX_ASSET = 200, 16 << 20
#: Keys that say nothing about the machine or the learner's task.
_APPEARANCE = ("interface", "environment", "icon", "icons", "pathwayTitle", "private", "tags")
_KNOWN = ("title", "description", "difficulty", "time", "details", "backend", *_APPEARANCE)
_PART = ("title", "text", "verify", "foreground", "background", "code", "courseData")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The intro, a step, or the end: texts and scripts as they were, empty where there is none."""

    title: str = ""
    text: str = ""
    verify: str = ""
    foreground: str = ""
    background: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that lies in the machine when the scenario begins."""

    source: Path
    #: The folder of the guest where it goes.
    target: str
    run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a scenario's folder says."""

    title: str
    description: str
    difficulty: str
    time: str
    image: str
    intro: Part
    steps: tuple[Part, ...]
    finish: Part
    assets: tuple[Asset, ...]


def read(folder: Path, notes: Notes) -> Scenario:
    """Read a scenario; NotFound without an index.json, DefinitionError when that is unreadable."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFound(f"{folder} is not a folder")
    return _Reader(root, notes).scenario()


class _Reader:
    def __init__(self, root: Path, notes: Notes) -> None:
        self.root = root
        self.notes = notes
        self.folder = Folder(root, Source(root / INDEX))

    def scenario(self) -> Scenario:
        index = self._index()
        details = _mapping(index.get("details"))
        for key in index:
            if key in _APPEARANCE:
                self.notes.lost(INDEX, f"{key}: how it looked there")
            elif key not in _KNOWN:
                self.notes.lost(INDEX, f"{key}: not known to this import")
        for key in details:
            if key not in ("intro", "steps", "finish", "assets"):
                self.notes.lost(INDEX, f"details.{key}: not known to this import")
        return Scenario(
            title=_text(index.get("title")),
            description=_text(index.get("description")),
            difficulty=_text(index.get("difficulty")),
            time=_text(index.get("time")),
            image=_text(_mapping(index.get("backend")).get("imageid")),
            intro=self._part(details.get("intro"), "intro"),
            steps=self._steps(details.get("steps")),
            finish=self._part(details.get("finish"), "finish"),
            assets=self._assets(_mapping(details.get("assets"))),
        )

    def _index(self) -> dict[str, Any]:
        file = self.root / INDEX
        if not os.path.lexists(file):
            raise NotFound(f"{file} is not there", hint="PATH is the folder of one scenario")
        raw = self.folder.data(INDEX, (), _MAX_INDEX)
        if raw is None:
            raise DefinitionError(f"{file}: {self.folder.problems[-1].message}")
        try:
            index = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"{file}: not JSON: {error}") from None
        if not isinstance(index, dict):
            raise DefinitionError(f"{file}: expected an object with title and details")
        return index

    def _steps(self, raw: object) -> tuple[Part, ...]:
        steps = raw if isinstance(raw, list) else []
        if len(steps) > _MAX_STEPS:
            self.notes.lost(INDEX, f"the steps after number {_MAX_STEPS}")
        return tuple(self._part(step, f"step {n}") for n, step in enumerate(steps[:_MAX_STEPS], 1))

    def _part(self, raw: object, where: str) -> Part:
        said = _mapping(raw)
        for key in said:
            if key not in _PART:
                self.notes.lost(INDEX, f"{key} of {where}: not known to this import")
        return Part(
            title=_text(said.get("title")),
            text=self._file(said.get("text"), MAX_TEXT),
            verify=self._file(said.get("verify"), _MAX_SCRIPT),
            # The older names are Katacoda's.
            foreground=self._file(said.get("foreground", said.get("code")), _MAX_SCRIPT),
            background=self._file(said.get("background", said.get("courseData")), _MAX_SCRIPT),
        )

    def _file(self, name: object, limit: int) -> str:
        """Read a text file that the index names, or note why not."""
        if not isinstance(name, str) or not name:
            return ""
        name = name.removeprefix("./")
        trouble = path_trouble(name)
        data = None if trouble else self.folder.data(name, (), limit)
        if data is None:
            self.notes.lost(name, trouble or self.folder.problems[-1].message)
            return ""
        return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\0", "")

    def _assets(self, hosts: dict[str, Any]) -> tuple[Asset, ...]:
        found: list[Asset] = []
        there = self._there() if hosts else []
        for number, (host, entries) in enumerate(hosts.items()):
            if number:
                self.notes.lost(INDEX, f"assets of {host}: a puzzle has one machine")
                continue
            for entry in entries if isinstance(entries, list) else []:
                found += self._asset(_mapping(entry), there)
        if len(found) > _MAX_ASSETS:
            self.notes.lost("assets", f"the files after number {_MAX_ASSETS}")
        return tuple(found[:_MAX_ASSETS])

    def _asset(self, entry: dict[str, Any], there: list[str]) -> list[Asset]:
        pattern, target = _text(entry.get("file")), _text(entry.get("target")) or "/root"
        if target == "~" or target.startswith("~/"):
            target = "/root" + target[1:]
        target = "/" + "/".join(part for part in target.split("/") if part)
        mode = _text(entry.get("chmod"))
        run = mode.endswith("+x") or any(digit in "1357" for digit in mode)
        names = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            self.notes.lost(f"assets/{pattern}", "no such file")
        return [Asset(source=self.root / "assets" / name, target=target, run=run) for name in names]

    def _there(self) -> list[str]:
        """List the plain files of assets/, by their paths in it."""
        top, found = self.root / "assets", []
        if top.is_symlink():
            return []
        for where, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                path = Path(where) / name
                inside = str(path.relative_to(top))
                if path.is_symlink() or not path.is_file():
                    self.notes.lost(f"assets/{inside}", "not a plain file")
                elif path.stat().st_size > _MAX_ASSET:
                    self.notes.lost(f"assets/{inside}", f"larger than {_MAX_ASSET >> 20} MiB")
                else:
                    found.append(inside)
        return found


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
