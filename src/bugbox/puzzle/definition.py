# SPDX-License-Identifier: Apache-2.0
"""A puzzle's folder as values: the manifest, the scripts and the texts, read once and checked.

A `Puzzle` holds what it needs in memory, so that nobody opens a file of the folder a second time,
when it may have become a link to somewhere else. `load` raises one DefinitionError that lists
every problem, each with file, line, column and key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bugbox.errors import NotFound
from bugbox.puzzle.explain import explained
from bugbox.puzzle.folder import MAX_BUILD, MAX_SCRIPT, Folder
from bugbox.puzzle.keys import path_trouble
from bugbox.puzzle.manifest import CheckEntry, Manifest
from bugbox.puzzle.probe_keys import Probe
from bugbox.puzzle.problem import Loc, Problem, definition_error
from bugbox.puzzle.script import Script
from bugbox.puzzle.setup import asks
from bugbox.puzzle.yaml_source import MAX_BYTES, Source, parse

__all__ = ["MANIFEST", "Check", "HintText", "Puzzle", "Script", "load", "read"]

MANIFEST = "puzzle.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One assertion about the machine."""

    id: str
    title: str
    #: None where there is a probe.
    script: Script | None = None
    user: str = "root"
    timeout_s: float = 10.0
    needs: tuple[str, ...] = ()
    #: guest, clone or outside.
    where: str = "guest"
    #: With outside: what is sent to the machine.
    probe: Probe | None = None
    #: reboot, or None.
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HintText:
    """One step of help, as the author wrote it."""

    title: str
    text: str
    not_before_s: float = 0.0
    not_before_checks: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """Everything in a puzzle's folder but the contents of what a build gets."""

    #: Absolute, without symbolic links.
    folder: Path
    manifest: Manifest
    #: Markdown; empty when the folder has none.
    description: str
    walkthrough: str = ""
    debrief: str = ""
    build: Script | None = None
    break_: Script | None = None
    boot: Script | None = None
    session: Script | None = None
    ready: Script | None = None
    checks: tuple[Check, ...]
    #: solve.sh, then solve.d/*: each is a way of its own.
    solutions: tuple[Script, ...] = ()
    #: wrong.d/*: plausible, and still refused.
    wrong: tuple[Script, ...] = ()
    hints: tuple[HintText, ...] = ()
    #: files/ and others, which lie in /puzzle of the build machine under their names.
    inputs: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """Its slug, which is the folder's name."""
        return self.manifest.name

    @property
    def title(self) -> str:
        """What a learner sees first."""
        return self.manifest.title

    @property
    def base(self) -> str:
        """Name of the base image, without a digest."""
        return self.manifest.base.partition("@")[0]

    @property
    def base_digest(self) -> str | None:
        """`sha256:…` when the base is pinned."""
        return self.manifest.base.partition("@")[2] or None

    @property
    def builds(self) -> bool:
        """Whether it changes anything on its base, by build.sh or by what the manifest asks."""
        return self.build is not None or asks(self.manifest)

    @property
    def check_scripts(self) -> tuple[Script, ...]:
        """Those of its checks that are scripts."""
        return tuple(check.script for check in self.checks if check.script is not None)

    @property
    def solve(self) -> Script | None:
        """The reference solution."""
        return self.solutions[0] if self.solutions else None


def load(folder: Path) -> Puzzle:
    """Read and check a puzzle's folder; DefinitionError lists every problem."""
    puzzle, problems = read(folder)
    if puzzle is None:
        raise definition_error(problems)
    return puzzle


def read(folder: Path) -> tuple[Puzzle | None, list[Problem]]:
    """Read a puzzle's folder; without a puzzle, say all that is wrong. NotFound: no folder."""
    root = folder.resolve()
    if not root.is_dir():
        raise NotFound(f"{folder} is not a folder", hint="bugbox list shows the puzzles")
    source = _source(root)
    manifest = None if source.problems else _validated(source)
    if isinstance(source.data, dict):
        source.problems += _contradictions(source, root)
    reader = Folder(root, source)
    parts = _Parts(source.data, reader)
    problems = [*source.problems, *reader.problems]
    if manifest is None or problems:
        return None, problems
    return parts.puzzle(root, manifest), []


def _source(root: Path) -> Source:
    """Read puzzle.yaml with the same care as every other file of the folder."""
    source = Source(root / MANIFEST)
    reader = Folder(root, source)
    raw = reader.data(MANIFEST, (), MAX_BYTES)
    if raw is None:
        source.problems = reader.problems
        return source
    return parse(raw, root / MANIFEST)


def _validated(source: Source) -> Manifest | None:
    try:
        return Manifest.model_validate(source.data)
    except ValidationError as error:
        source.problems += explained(error, source)
        return None


def _contradictions(source: Source, root: Path) -> list[Problem]:
    """Find what types cannot see: keys that do not go together."""
    data = source.data
    found = []
    if isinstance(data.get("name"), str) and data["name"] != root.name:
        message = f'expected the name of its folder, {root.name}, got "{data["name"]}"'
        found.append(source.problem(("name",), message))
    seen: dict[str, int] = {}
    for n, entry in _entries(data, "checks"):
        loc: Loc = ("checks", n)
        own = entry.get("id")
        if isinstance(own, str):
            if own in seen:
                message = f'"{own}" is already the id of checks[{seen[own]}]'
                found.append(source.problem((*loc, "id"), message))
            for m, need in enumerate(_list(entry.get("needs"))):
                if need not in seen:
                    message = f'expected the id of a check above this one, got "{need}"'
                    found.append(source.problem((*loc, "needs", m), message))
            seen.setdefault(own, n)
        if entry.get("after") is not None and entry.get("where") != "clone":
            found.append(source.problem((*loc, "after"), "needs where: clone beside it"))
    return found


class _Parts:
    """Every file the folder holds, read also beside a wrong manifest, to list all problems."""

    def __init__(self, data: Any, reader: Folder) -> None:
        self.data = data if isinstance(data, dict) else {}
        self.reader = reader
        if not self.data:
            return
        self.checks = [
            self._script(("checks", n, "run"), None)
            for n, _ in enumerate(_list(self.data.get("checks")))
        ]
        self.build = self._script(("build", "script"), "build.sh", limit=MAX_BUILD)
        self.boot = self._script(("boot", "script"), "boot.sh")
        self.ready = self._script(("boot", "ready"), "ready.sh")
        self.break_ = reader.script_if_there("break.sh")
        self.session = reader.script_if_there("session.sh")
        solve = self._script(("solution", "script"), "solve.sh")
        self.solutions = (
            *((solve,) if solve else ()),
            *self._folder(("solution", "alternatives"), "solve.d"),
        )
        self.wrong = self._folder(("test", "wrong"), "wrong.d")
        self.description = self._text(("description",), "description.md", required=True)
        self.walkthrough = self._text(("solution", "walkthrough"), "solution.md")
        self.debrief = self._text(("debrief",), "debrief.md")
        self.hint_texts = self._hint_texts()
        named = {
            name: ("build", "inputs", n)
            for n, name in enumerate(_list(_at(self.data, ("build", "inputs"))))
            if isinstance(name, str) and name != "files" and not path_trouble(name)
        }
        found = [reader.files(), *(reader.files(name, loc) for name, loc in named.items())]
        self.inputs = tuple(path for path in found if path is not None)

    def puzzle(self, root: Path, manifest: Manifest) -> Puzzle:
        """Put the puzzle together; only when there was no problem."""
        return Puzzle(
            folder=root,
            manifest=manifest,
            description=self.description,
            walkthrough=self.walkthrough,
            debrief=self.debrief,
            build=self.build,
            break_=self.break_,
            boot=self.boot,
            session=self.session,
            ready=self.ready,
            checks=tuple(map(_check, manifest.checks, self.checks)),
            solutions=self.solutions,
            wrong=self.wrong,
            hints=self._hints(manifest),
            inputs=self.inputs,
        )

    def _script(self, loc: Loc, usual: str | None, limit: int = MAX_SCRIPT) -> Script | None:
        named = _at(self.data, loc)
        if isinstance(named, str):
            return self.reader.script(named, loc, limit=limit)
        return self.reader.script_if_there(usual, limit=limit) if usual else None

    def _folder(self, loc: Loc, usual: str) -> tuple[Script, ...]:
        named = _at(self.data, loc)
        return self.reader.scripts(named if isinstance(named, str) else usual)

    def _text(self, loc: Loc, usual: str, *, required: bool = False) -> str:
        named = _at(self.data, loc)
        if isinstance(named, str):
            return self.reader.text(named, loc)
        return self.reader.text(usual) if required else self.reader.text_if_there(usual)

    def _hint_texts(self) -> list[str]:
        if self.data.get("hints") is None:
            return [self.reader.text(name) for name in self.reader.listed("hints", ".md")]
        found = []
        for n, entry in _entries(self.data, "hints"):
            named = entry.get("file")
            loc: Loc = ("hints", n, "file")
            found.append(self.reader.text(named, loc) if isinstance(named, str) else "")
        return found

    def _hints(self, manifest: Manifest) -> tuple[HintText, ...]:
        if manifest.hints is None:
            return tuple(_titled(n, text) for n, text in enumerate(self.hint_texts, 1))
        return tuple(
            HintText(
                title=entry.title,
                text=text,
                not_before_s=entry.not_before,
                not_before_checks=entry.not_before_checks,
                cost=entry.cost,
            )
            for entry, text in zip(manifest.hints, self.hint_texts, strict=True)
        )


def _titled(n: int, text: str) -> HintText:
    """Make a hint of a file alone: its heading, if it starts with one, is the title."""
    first, _, rest = text.lstrip().partition("\n")
    if first.startswith("#"):
        return HintText(title=first.lstrip("# ") or f"Hint {n}", text=rest.lstrip("\n"))
    return HintText(title=f"Hint {n}", text=text)


def _check(entry: CheckEntry, script: Script | None) -> Check:
    return Check(
        id=entry.id,
        title=entry.title,
        script=script,
        user=entry.user,
        timeout_s=entry.timeout,
        needs=entry.needs,
        where=entry.where,
        probe=entry.probe,
        after=entry.after,
    )


def _at(data: Any, loc: Loc) -> Any:
    """Return what stands at a location, or None: the data may be of any shape."""
    for part in loc:
        if isinstance(part, str):
            data = data.get(part) if isinstance(data, dict) else None
        else:
            data = data[part] if isinstance(data, list) else None
    return data


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _entries(data: dict[str, Any], key: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the mappings of a list, each with its number."""
    return [(n, each) for n, each in enumerate(_list(data.get(key))) if isinstance(each, dict)]
