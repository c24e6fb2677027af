# SPDX-License-Identifier: Apache-2.0
"""bugbox show: a puzzle's story, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bugbox.cli.out import document, paint, printable, prose, say
from bugbox.cli.packed import is_packed
from bugbox.cli.progressfile import solved_puzzles
from bugbox.config import load
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.puzzle.definition import Puzzle
from bugbox.puzzle.manifest import Author, Manifest
from bugbox.puzzle.quantity import format_duration, format_size
from bugbox.session.packing import peek

__all__ = ["show"]


def show(name: str | None = None, /, *, json: bool = False) -> int:
    """Tell a puzzle's story, how hard it is, what it teaches and what it needs.

    Args:
        name: A name of the catalogue, a folder or a packed file. Without it, this folder.
        json: Print one JSON document.
    """
    home = Home()
    if name is not None and is_packed(name):
        puzzle = peek(home, Path(name))
    else:
        puzzle = find(name, roots(load(home).puzzles), Path.cwd())
    facts = _facts(puzzle, puzzle.name in solved_puzzles(home))
    if json:
        document(facts)
        return 0
    say(paint(printable(puzzle.title), "bold"))
    say()
    say(prose(puzzle.description))
    say()
    for key, value in _people(puzzle, facts):
        say(f"{key + ':':<13} {printable(value)}")
    return 0


def _facts(puzzle: Puzzle, solved: bool) -> dict[str, Any]:
    wishes = puzzle.manifest
    return {
        "name": puzzle.name,
        "version": wishes.version,
        "title": wishes.title,
        "summary": wishes.summary,
        "description": puzzle.description,
        "difficulty": wishes.difficulty,
        "estimated_time_s": wishes.estimated_time,
        "categories": [*wishes.categories],
        "tags": [*wishes.tags],
        "skills": [*wishes.skills],
        "authors": [author.model_dump() for author in wishes.authors],
        "license": wishes.license,
        "inspired_by": wishes.inspired_by,
        "language": wishes.language,
        "requires": [*wishes.requires],
        "next": [*wishes.next],
        "hints": len(puzzle.hints),
        "checks": [{"id": check.id, "title": check.title} for check in puzzle.checks],
        "base": wishes.base,
        "machine": {
            "vcpus": wishes.machine.vcpus,
            "memory_mib": wishes.machine.memory >> 20,
            "disk_mib": wishes.machine.disk >> 20,
        },
        "points": wishes.scoring.points,
        "ports": [
            {"name": port.name, "port": port.port, "protocol": port.protocol, "path": port.path}
            for port in wishes.ports
            if port.show
        ],
        "check_policy": wishes.check_policy.model_dump(),
        "session": wishes.session.model_dump(),
        "access": wishes.access.model_dump(),
        "kernel": wishes.kernel,
        "egress": _egress(wishes.network.egress),
        "folder": str(puzzle.folder),
        "solved": solved,
    }


def _egress(egress: str | tuple[str, ...]) -> str | dict[str, list[str]]:
    return egress if isinstance(egress, str) else {"allow": [*egress]}


def _people(puzzle: Puzzle, facts: dict[str, Any]) -> list[tuple[str, str]]:
    wishes = puzzle.manifest
    time = format_duration(wishes.estimated_time) if wishes.estimated_time else ""
    machine = wishes.machine
    rows = [
        ("name", f"{puzzle.name}{' (solved)' if facts['solved'] else ''}"),
        ("difficulty", ", ".join(part for part in (wishes.difficulty, time) if part)),
        ("skills", "; ".join(wishes.skills)),
        ("first", ", ".join(wishes.requires)),
        ("hints", str(len(puzzle.hints))),
        ("points", _points(wishes)),
        ("ports", ", ".join(f"{p.name} ({p.port}, {p.protocol})" for p in wishes.ports if p.show)),
        ("checks", _pace(wishes)),
        ("session", _time(wishes)),
        (
            "machine",
            f"{machine.vcpus} CPU, {format_size(machine.memory)} memory, "
            f"{format_size(machine.disk)} disk, on {puzzle.base}"
            + (f" with kernel {wishes.kernel}" if wishes.kernel else ""),
        ),
        ("inspired by", wishes.inspired_by or ""),
        ("language", wishes.language),
        ("version", wishes.version or ""),
        *(("author", _author(author)) for author in wishes.authors),
        ("licence", wishes.license or ""),
    ]
    return [(key, value) for key, value in rows if value]


def _points(wishes: Manifest) -> str:
    scoring = wishes.scoring
    bonus = f", {scoring.first_try_bonus} more at the first try" if scoring.first_try_bonus else ""
    return f"{scoring.points}{bonus}" if scoring.points or bonus else ""


def _pace(wishes: Manifest) -> str:
    seconds = wishes.check_policy.min_interval
    own = "also by themselves" if wishes.check_policy.trigger == "auto" else ""
    pace = f"one in {format_duration(seconds)} at most, where it is served" if seconds else ""
    return "; ".join(filter(None, (own, pace)))


def _time(wishes: Manifest) -> str:
    limits = wishes.session
    words = {
        "": limits.duration,
        "more each time: ": limits.extend,
        "in all at most ": limits.deadline,
        "left alone at most ": limits.idle,
    }
    told = ", ".join(f"{what}{format_duration(s)}" for what, s in words.items() if s is not None)
    return f"{told}, where it is served" if told else ""


def _author(author: Author) -> str:
    mail, page = f"<{author.email}>", f"({author.url})"
    parts = (author.name, mail if author.email else "", page if author.url else "")
    return " ".join(part for part in parts if part)
