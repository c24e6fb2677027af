# SPDX-License-Identifier: Apache-2.0
"""What pydantic found wrong, in words for an author: expected, got, and the nearest known key."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bugbox.puzzle.keys import PATTERNS
from bugbox.puzzle.manifest import Manifest
from bugbox.puzzle.problem import Loc, Problem, key_path
from bugbox.puzzle.yaml_source import Source

__all__ = ["explained", "submodel", "walk"]

_EXPECTED = {
    "string_type": "text",
    "string_unicode": "text without half characters",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "float_type": "a number",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
}


def explained(error: ValidationError, source: Source) -> list[Problem]:
    """Translate every error of a validation."""
    return [
        _problem(each, source) for each in error.errors(include_url=False) if not _consequence(each)
    ]


def _consequence(error: ErrorDetails) -> bool:
    """A list with a wrong item also counts as one too short."""
    short = error["type"] == "too_short"
    return short and len(error["input"]) >= error.get("ctx", {})["min_length"]


def _problem(error: ErrorDetails, source: Source) -> Problem:
    loc: Loc = error["loc"]
    kind = error["type"]
    if kind == "missing":
        return source.problem(loc, f"this key is missing: {_meaning(loc)}")
    if kind == "extra_forbidden":
        return source.problem(loc, f"unknown key; {_nearest(loc)}", at_key=True)
    if kind == "not_yet":
        return source.problem(loc, error["msg"], at_key=True)
    return source.problem(loc, f"expected {_expected(error)}, got {_got(error, loc, source)}")


def _expected(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "expected":
        return error["msg"]
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "string_pattern_mismatch":
        return PATTERNS[str(context["pattern"])]
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    if kind == "too_long":
        return f"at most {context['max_length']} of them"
    if kind == "model_type":
        known = _known(error["loc"])
        needed = [name for name, field in known.items() if field.is_required()]
        return (
            f"a mapping with at least {', '.join(needed)}"
            if needed
            else (f"a mapping of {', '.join(known)}")
        )
    return _EXPECTED.get(kind, error["msg"])


def _got(error: ErrorDetails, loc: Loc, source: Source) -> str:
    value: Any = error["input"]
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "a mapping"
    written = source.written.get(loc, str(value))
    if isinstance(value, str):
        return f'"{written[:80]}"' + ("…" if len(written) > 80 else "")
    what = {bool: "the truth value", int: "the number", float: "the number"}
    got = f"{what.get(type(value), 'the date')} {written[:80]}"
    if error["type"] != "string_type":
        return got
    lost = f" (YAML reads it as {value})" if isinstance(value, float) else ""
    return f'{got}{lost}: put it in quotes, "{written[:80]}"'


def _meaning(loc: Loc) -> str:
    for name, field in _known(loc[:-1]).items():
        if name == loc[-1]:
            return (field.description or "").rstrip(".")
    return "see docs/reference/puzzle-format.md"


def _nearest(loc: Loc) -> str:
    name = str(loc[-1])
    known = _known(loc[:-1])
    elsewhere = [path for path, _ in walk() if path.split(".")[-1] == name]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    near = get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {key_path((*loc[:-1], near[0]))}?"
    return f"the keys known here are {', '.join(known)}"


def _known(loc: Loc) -> dict[str, FieldInfo]:
    """Return the fields of the model at a location."""
    model: type[BaseModel] = Manifest
    for part in loc:
        field = None if isinstance(part, int) else _fields(model).get(part)
        inner = None if field is None else submodel(field)
        model = model if inner is None else inner
    return _fields(model)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def submodel(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model a field holds, one or many of."""
    waiting = [field.annotation]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        waiting.extend(get_args(kind))
    return None


def walk(model: type[BaseModel] = Manifest, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key, with those inside it, as its path: `checks[].timeout`."""
    for name, field in _fields(model).items():
        yield prefix + name, field
        inner = submodel(field)
        if inner is not None:
            annotation = str(field.annotation)
            many = "[]" if "tuple[" in annotation else ".NAME" if "dict[" in annotation else ""
            yield from walk(inner, f"{prefix}{name}{many}.")
