# SPDX-License-Identifier: Apache-2.0
"""The documents say what the code does, and nothing they should not."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from bugbox import errors
from bugbox.config import Settings
from bugbox.paths import shipped_puzzles
from bugbox.puzzle.catalogue import entries
from bugbox.puzzle.matrix import Stage
from bugbox.puzzle.quantity import format_duration
from bugbox.puzzle.scaffold import TEMPLATES

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    p for p in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "guest/PROTOCOL.md"]
)


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def test_every_setting_is_documented() -> None:
    page = text_of("docs/reference/settings.md")
    for field in fields(Settings):
        assert f"| `{field.name}` | `BUGBOX_{field.name.upper()}` |" in page, field.name


def test_no_setting_is_invented() -> None:
    page = text_of("docs/reference/settings.md")
    known = {field.name for field in fields(Settings)}
    assert set(re.findall(r"^\| `([a-z_]+)` \|", page, re.M)) == known


def test_every_error_is_documented_with_its_status() -> None:
    page = text_of("docs/reference/errors.md")
    for name in errors.__all__:
        found = getattr(errors, name)
        if isinstance(found, type):
            assert re.search(rf"^\| `{name}` \| {found.exit_status} \|", page, re.M), name


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page_id(path)}: {target}"


def test_no_two_decisions_have_one_number() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("0*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len({*numbers}) == len(numbers)
    for page in pages:
        assert int(re.findall(r"\d+", page.read_text())[0]) == int(page.name[:4]), page.name


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_make_targets_in_the_text_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", text_of("Makefile"), re.M))
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text(), re.M):
        assert target in targets, f"{page_id(path)}: make {target}"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_commands_in_the_text_exist(path: Path) -> None:
    known = set(re.findall(r"^## bugbox ([a-z]+)", text_of("docs/reference/cli.md"), re.M))
    assert "start" in known
    for verb in re.findall(r"(?:^\s*\$? ?|`)bugbox ([a-z]+)\b", path.read_text(), re.M):
        assert verb in known | {"story"}, f"{page_id(path)}: bugbox {verb}"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_options_in_the_text_exist(path: Path) -> None:
    page = text_of("docs/reference/cli.md")
    sections = dict(re.findall(r"^## bugbox ([a-z ]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    for line in re.findall(r"^    (?:\$ )?bugbox (.*)", path.read_text(), re.M):
        words = line.partition(" -- ")[0].split()
        verb = " ".join(words[:2]) if " ".join(words[:2]) in sections else words[0]
        for option in [word for word in words if word.startswith("--")]:
            assert f" {option}" in sections.get(verb, ""), f"{page_id(path)}: bugbox {line}"


def test_every_template_and_stage_is_in_the_walk_through() -> None:
    page = text_of("docs/howto/write-a-puzzle.md")
    for template in TEMPLATES:
        assert f"`{template}`" in page, template
    assert re.findall(r"^\| ([a-z]+) \| (?!what must)", page, re.M) == [*Stage]


def test_the_catalogue_page_has_a_row_for_each_puzzle() -> None:
    page = text_of("docs/reference/catalogue.md")
    puzzles = [entry.puzzle for entry in entries([shipped_puzzles()]) if entry.puzzle]
    rows = {
        puzzle.name: (
            puzzle.title,
            puzzle.manifest.difficulty,
            format_duration(puzzle.manifest.estimated_time or 0),
        )
        for puzzle in puzzles
    }
    told = re.findall(r"^\| `([a-z0-9-]+)` \| (.+?) \| (\w+) \| (\w+) \| \d+ \|$", page, re.M)
    assert {name: tuple(rest) for name, *rest in told} == rows
    assert len(told) == len(rows)


def test_tests_named_in_the_specification_exist() -> None:
    for file in re.findall(r"`(tests/[\w/]+\.py)`", text_of("docs/specification.md")):
        assert (ROOT / file).is_file(), file


def test_the_repository_names_no_machine_and_no_host() -> None:
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    # Spelt in pieces, so that this file does not name them either.
    wrong = re.compile(r"/wor[k]/main|pypi\.or[g]|deb\.debi[a]n|registry\.np[m]|/tmp/h-[a-z]")
    for file in done.stdout.splitlines():
        path = ROOT / file
        if path.is_file() and path.stat().st_size < 1 << 20:
            found = wrong.search(path.read_bytes().decode(errors="replace"))
            assert not found, f"{file}: {found and found.group()}"
