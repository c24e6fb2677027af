# SPDX-License-Identifier: Apache-2.0
"""The table of every key in docs/reference/puzzle-format.md, made from the models.

A test compares it with the page, and says how to bring the page up to date.
"""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo

from bugbox.puzzle.explain import walk

__all__ = ["table"]


def table() -> str:
    """Return the Markdown table, one row a key."""
    rows = ["| key | type | default | read by | what it says |", "|---|---|---|---|---|"]
    refused: list[str] = []
    for path, field in walk():
        extra = _extra(field)
        inside = any(path.startswith((f"{parent}.", f"{parent}[")) for parent in refused)
        if extra["x-read-by"] == "nothing yet" and not inside:
            refused.append(path)
        reader = "nothing yet: refused" if inside or path in refused else extra["x-read-by"]
        text = (field.description or "").removeprefix("Not supported yet. ")
        cells = (f"`{path}`", extra["x-kind"], _default(field, extra), reader, text)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _extra(field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {}


def _default(field: FieldInfo, extra: dict[str, Any]) -> str:
    if field.is_required():
        return "**required**"
    if "x-default" in extra:
        shown = str(extra["x-default"])
        return shown if " " in shown else f"`{shown}`"
    value = field.default
    if value is None or value == () or value == {} or not isinstance(value, str | int):
        return ""
    return f"`{str(value).lower()}`"
