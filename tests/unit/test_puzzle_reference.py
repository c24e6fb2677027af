# SPDX-License-Identifier: Apache-2.0
"""The reference page and the JSON Schema say what the models accept."""

import json
from pathlib import Path
from typing import Any

import pytest

from bugbox.puzzle.explain import walk
from bugbox.puzzle.manifest import Manifest
from bugbox.puzzle.reference import table
from bugbox.puzzle.schema import schema

PAGE = Path(__file__).parents[2] / "docs/reference/puzzle-format.md"
START = "<!-- keys: made by bugbox.puzzle.reference -->\n"
END = "<!-- end of keys -->"

MINIMAL: dict[str, Any] = {
    "schema": 1,
    "name": "tiny",
    "title": "Tiny",
    "summary": "The smallest there is.",
    "checks": [{"id": "one", "title": "One", "run": "checks/one.sh"}],
}


def test_the_page_has_the_table_of_the_models() -> None:
    """To bring the page up to date, paste what `table()` returns between the two comments."""
    text = PAGE.read_text()
    assert text.split(START)[1].split(END)[0].strip() == table().strip()


def test_every_key_says_what_it_is_and_who_reads_it() -> None:
    for path, field in walk():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), path
        assert extra["x-kind"] and extra["x-read-by"], path
        assert field.description, path


@pytest.mark.parametrize("path", [path for path, _ in walk() if "." not in path])
def test_a_key_nothing_reads_is_refused_and_any_other_is_not(path: str) -> None:
    """The page's `nothing yet: refused` is what the models do."""
    row = next(line for line in table().splitlines() if line.startswith(f"| `{path}` |"))
    raw = {**MINIMAL, path: {} if "mapping" in row else MINIMAL.get(path, [])}
    try:
        Manifest.model_validate(raw)
        errors = []
    except ValueError as error:
        errors = [each["type"] for each in error.errors()]  # type: ignore[attr-defined]
    assert ("not_yet" in errors) == ("nothing yet: refused" in row)


def test_the_schema_is_json_and_knows_every_key() -> None:
    made = json.loads(json.dumps(schema()))
    known = set(made["properties"])
    for model in made["$defs"].values():
        known |= set(model["properties"])
        assert model["additionalProperties"] is False
    assert known == {path.split(".")[-1] for path, _ in walk()}
    assert set(made["required"]) == {"schema", "name", "title", "summary", "checks"}
    assert made["$defs"]["Machine"]["properties"]["memory"]["default"] == "256MiB"
