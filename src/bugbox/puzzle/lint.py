# SPDX-License-Identifier: Apache-2.0
"""What is wrong, or looks wrong, in a puzzle's folder, before any machine is started.

No script of the folder is run: `sh -n` only reads it, where a shell is installed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from bugbox.puzzle.definition import MANIFEST, Puzzle, read
from bugbox.puzzle.lint_script import script_findings
from bugbox.puzzle.lint_wishes import wish_findings
from bugbox.puzzle.problem import Problem, shown_path
from bugbox.puzzle.script import Script, refused_by
from bugbox.puzzle.text import one_line
from bugbox.puzzle.variants import PREFIX, names

__all__ = ["Finding", "lint"]

Level = Literal["error", "warning"]
_VARIABLE = re.compile(rf"\b{PREFIX}([A-Z][A-Z0-9_]*)\b")
#: Scripts that have a fixed name in the folder.
_USUAL = ("build.sh", "break.sh", "boot.sh", "session.sh", "ready.sh", "solve.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing an author should look at."""

    level: Level
    #: The rule's short name, the same for ever.
    rule: str
    file: Path
    line: int = 1
    column: int = 1
    message: str

    def __str__(self) -> str:
        where = f"{shown_path(self.file)}:{self.line}:{self.column}"
        return one_line(f"{where}: {self.level}: {self.message} [{self.rule}]", 600)

    def as_json(self) -> dict[str, Any]:
        """Return the shape that `lint --json` prints."""
        keys = ("level", "rule", "line", "column", "message")
        return {"file": str(self.file), **{key: getattr(self, key) for key in keys}}


def lint(folder: Path, known: Collection[str] = ()) -> list[Finding]:
    """Look at a puzzle's folder; `known` are the names of the catalogue, if they matter."""
    puzzle, problems = read(folder)
    if puzzle is None:
        return sorted(map(_of_problem, problems), key=_order)
    found = [
        *_scripts(puzzle),
        *_completeness(puzzle),
        *_refusals(puzzle),
        *_spoilers(puzzle),
        *_placeholders(puzzle),
        *_variables(puzzle),
        *_leftovers(puzzle),
        *_neighbours(puzzle, known),
        *(_warning(puzzle, each.rule, each.message) for each in wish_findings(puzzle)),
    ]
    return sorted(found, key=_order)


def _order(finding: Finding) -> tuple[str, str, int, int]:
    return finding.level, str(finding.file), finding.line, finding.column


def _of_problem(problem: Problem) -> Finding:
    return Finding(
        level="error",
        rule="definition",
        file=problem.file,
        line=problem.line,
        column=problem.column,
        message=f"{problem.key}: {problem.message}" if problem.key else problem.message,
    )


def _scripts(puzzle: Puzzle) -> Iterator[Finding]:
    checks = puzzle.check_scripts
    # These are run by the shell that their first line names: build.sh, and what a learner types.
    own = [puzzle.build, *puzzle.solutions, *puzzle.wrong]
    for script in _every_script(puzzle):
        for each in script_findings(
            script,
            injected=script not in own,
            check=script in checks,
            layer=script is puzzle.build,
        ):
            yield Finding(
                level=each.level,
                rule=each.rule,
                file=script.file,
                line=each.line,
                message=each.message,
            )


def _every_script(puzzle: Puzzle) -> list[Script]:
    checks = puzzle.check_scripts
    found = [puzzle.build, puzzle.break_, puzzle.boot, puzzle.session, puzzle.ready, *checks]
    found += [*puzzle.solutions, *puzzle.wrong]
    return [*{script.name: script for script in found if script}.values()]


def _completeness(puzzle: Puzzle) -> Iterator[Finding]:
    if not puzzle.solutions:
        message = "no solve.sh: nobody can tell whether the puzzle can be solved"
        yield _warning(puzzle, "no-solution", message)
    if not puzzle.wrong:
        message = "no wrong.d/*.sh: nothing shows that the checks refuse what is no fix"
        yield _warning(puzzle, "no-wrong-fix", message)
    if not puzzle.hints:
        yield _warning(puzzle, "no-hints", "no hints: who is stuck stays stuck")
    if puzzle.build is puzzle.break_ is puzzle.boot is puzzle.session is None:
        message = "none of build.sh, break.sh, boot.sh, session.sh: nothing is broken"
        yield _warning(puzzle, "nothing-broken", message)


def _refusals(puzzle: Puzzle) -> Iterator[Finding]:
    """A wrong fix may name the check that refuses it; the check must exist."""
    ids = [check.id for check in puzzle.checks]
    for script in puzzle.wrong:
        named = refused_by(script)
        if named is None or named[0] in ids:
            continue
        near = get_close_matches(named[0], ids, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ids)}"
        yield Finding(
            level="error",
            rule="refused-by",
            file=script.file,
            line=named[1],
            message=f"no check has the id {named[0]}; {hint}",
        )


def _spoilers(puzzle: Puzzle) -> Iterator[Finding]:
    """A hint says where to look, never what to type."""
    telling = {line for script in puzzle.solutions for line in _commands(script)}
    for n, hint in enumerate(puzzle.hints, 1):
        words = _squeezed(f"{hint.title} {hint.text}")
        for line in sorted(telling):
            if line in words:
                message = f'hint {n} holds a line of the solution: "{line}"'
                yield _finding(puzzle, "error", "spoiler", message)


def _commands(script: Script) -> Iterator[str]:
    for raw in script.text.decode("utf-8", "replace").splitlines():
        line = _squeezed(raw)
        if len(line) >= 10 and not line.startswith(("#", "set ")):
            yield line


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _placeholders(puzzle: Puzzle) -> Iterator[Finding]:
    """`{{NAME}}` must be one of the variants."""
    texts = {
        "description": puzzle.description,
        "solution": puzzle.walkthrough,
        "debrief": puzzle.debrief,
        **{f"hint {n}": f"{hint.title}\n{hint.text}" for n, hint in enumerate(puzzle.hints, 1)},
        **{
            f"probe of {check.id}": f"{check.probe.http} {check.probe.dns} {check.probe.contains}"
            for check in puzzle.checks
            if check.probe is not None
        },
    }
    for what, text in texts.items():
        for name, _ in names(text):
            if name not in puzzle.manifest.variants:
                message = f"{{{{{name}}}}} in the {what} is not one of the variants"
                yield _finding(puzzle, "error", "placeholder", message)


def _variables(puzzle: Puzzle) -> Iterator[Finding]:
    """`$PUZZLE_NAME` must be one of the variants, and one that is known when the script runs."""
    variants = puzzle.manifest.variants
    early = {script.name for script in (puzzle.break_, puzzle.boot) if script}
    for script in _every_script(puzzle):
        for number, line in enumerate(script.text.decode("utf-8", "replace").splitlines(), 1):
            for name in () if line.lstrip().startswith("#") else _VARIABLE.findall(line):
                wrong = ""
                if name not in variants:
                    wrong = f"{PREFIX}{name} is not one of the variants"
                elif script is puzzle.build:
                    wrong = f"{PREFIX}{name} in {script.name}: a layer is the same for all sessions"
                elif script.name in early and variants[name].random is not None:
                    wrong = (
                        f"{PREFIX}{name} is random, and {script.name} runs before a session has "
                        "its values; use it in session.sh"
                    )
                if wrong:
                    yield Finding(
                        level="error", rule="variant", file=script.file, line=number, message=wrong
                    )


def _leftovers(puzzle: Puzzle) -> Iterator[Finding]:
    """Files that look as if they meant something, and that nothing reads."""
    used = {script.name for script in puzzle.check_scripts}
    used |= {script.name for script in (*puzzle.solutions, *puzzle.wrong)}
    manifest = puzzle.manifest
    used |= {name for name in (manifest.build.script, manifest.boot.script) if name}
    used |= {name for name in (manifest.boot.ready, manifest.solution.script) if name}
    used |= {entry.file for entry in manifest.hints or ()}
    for file in sorted(puzzle.folder.glob("*.sh")):
        if file.name not in used and file.name not in _USUAL:
            near = get_close_matches(file.name, _USUAL, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield _unread(file, f"nothing reads {file.name}{hint}")
    for pattern in ("checks/*.sh", "hints/*.md"):
        if pattern.startswith("hints") and manifest.hints is None:
            continue
        for file in sorted(puzzle.folder.glob(pattern)):
            name = str(file.relative_to(puzzle.folder))
            if name not in used:
                yield _unread(file, f"{name} is not in the manifest")


def _neighbours(puzzle: Puzzle, known: Collection[str]) -> Iterator[Finding]:
    for key, others in (("requires", puzzle.manifest.requires), ("next", puzzle.manifest.next)):
        for other in others:
            if other == puzzle.name:
                yield _finding(puzzle, "error", "neighbour", f"{key}: names the puzzle itself")
            elif known and other not in known:
                near = get_close_matches(other, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                message = f"{key}: no puzzle is called {other}{hint}"
                yield _warning(puzzle, "neighbour", message)


def _finding(puzzle: Puzzle, level: Level, rule: str, message: str) -> Finding:
    line = 1
    raw = (puzzle.folder / MANIFEST).read_text(errors="replace")
    key = re.match(r"\w+(?=:)", message)
    for number, text in enumerate(raw.splitlines(), 1):
        if key and text.startswith(f"{key[0]}:"):
            line = number
    return Finding(
        level=level, rule=rule, file=puzzle.folder / MANIFEST, line=line, message=message
    )


def _warning(puzzle: Puzzle, rule: str, message: str) -> Finding:
    return _finding(puzzle, "warning", rule, message)


def _unread(file: Path, message: str) -> Finding:
    return Finding(level="warning", rule="unread", file=file, message=message)
