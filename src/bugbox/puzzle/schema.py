# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of puzzle.yaml, for editors that complete and check while one types."""

from __future__ import annotations

from typing import Any

from bugbox.puzzle.manifest import Manifest

__all__ = ["schema"]


def schema() -> dict[str, Any]:
    """Return the schema as plain data, ready for json.dumps."""
    made = Manifest.model_json_schema(by_alias=True)
    for model in (made, *made.get("$defs", {}).values()):
        for described in model.get("properties", {}).values():
            _tidy(described)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "bugbox puzzle.yaml",
        "description": "Describes one puzzle. See docs/reference/puzzle-format.md.",
    }


def _tidy(described: dict[str, Any]) -> None:
    """Defaults as an author would write them, and none that only repeats "empty"."""
    shown = described.pop("x-default", None)
    value = described.get("default")
    if shown is not None or value is None or isinstance(value, dict | list | tuple):
        described.pop("default", None)
    if shown is not None and described.get("type") == "string":
        described["default"] = shown
    if isinstance(described.get("default"), float):
        described.pop("default")
    if described.get("x-read-by") == "nothing yet":
        described["deprecated"] = True  # the nearest word editors know: they strike it through
