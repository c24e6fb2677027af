# SPDX-License-Identifier: Apache-2.0
"""YAML with the place of every key and value; only the plain part of the language.

Anchors, aliases, tags and several documents in one file are refused: a manifest needs none of
them, and a few aliases of aliases make gigabytes of a kilobyte. So is a key given twice. Words
such as `yes` and `on` are text, as YAML 1.2 has it.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from bugbox.puzzle.problem import Loc, Position, Problem

__all__ = ["MAX_BYTES", "Source", "parse", "written"]

#: A manifest of a real puzzle has a few KiB.
MAX_BYTES = 64 << 10
_MAX_DEPTH = 12
_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Source:
    """A parsed file: plain data, and where each part of it stands."""

    file: Path
    data: Any = None
    keys: dict[Loc, Position] = field(default_factory=dict)
    values: dict[Loc, Position] = field(default_factory=dict)
    #: Scalars as they are written: 1.10 and not 1.1.
    written: dict[Loc, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
        """Make a problem at a key's or value's place, or at the nearest thing around it."""
        places = self.keys if at_key else self.values
        near = loc
        while near and near not in places:
            near = near[:-1]
        return Problem.at(self.file, places.get(near, Position(1, 1)), loc, message)


def written(data: Mapping[str, Any]) -> str:
    """Return plain data as a manifest is written by hand: a key a line, in its order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 10_000  # a text that is folded is hard to read
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(dict(data), out)
    return out.getvalue()


def parse(raw: bytes, file: Path) -> Source:
    """Parse a whole file; what is wrong with it as YAML is in `problems`."""
    source = Source(file)
    text = _decoded(raw, source)
    if text is None:
        return source
    try:
        if _plain(text, source):
            node = YAML(typ="safe", pure=True).compose(text)
            source.data = None if node is None else _convert(node, (), source)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
        source.problems.append(Problem.at(file, place, (), _syntax(error, text, place)))
    except ReaderError as error:
        place = _place(text, error.position)
        message = f"the character U+{ord(text[error.position]):04X} may not stand in YAML"
        source.problems.append(Problem.at(file, place, (), message))
    except (YAMLError, ValueError, RecursionError) as error:
        source.problems.append(Problem.at(file, Position(1, 1), (), f"not valid YAML: {error}"))
    return source


def _decoded(raw: bytes, source: Source) -> str | None:
    if len(raw) > MAX_BYTES:
        message = f"larger than {MAX_BYTES >> 10} KiB; long texts belong in files of their own"
        source.problems.append(Problem.at(source.file, Position(1, 1), (), message))
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = raw.rfind(b"\n", 0, error.start) + 1
        column = len(raw[start : error.start].decode("utf-8", "replace")) + 1
        place = Position(raw.count(b"\n", 0, error.start) + 1, column)
        message = f"not UTF-8: byte 0x{raw[error.start]:02x}; save the file as UTF-8"
        source.problems.append(Problem.at(source.file, place, (), message))
        return None


def _place(text: str, offset: int) -> Position:
    return Position(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def _syntax(error: MarkedYAMLError, text: str, place: Position) -> str:
    lines = text.split("\n")
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error.problem):
        return "a tab; YAML is indented with spaces only"
    return "not valid YAML: " + ", ".join(
        part for part in (error.context, error.problem) if part
    ).replace("\n", " ")


def _plain(text: str, source: Source) -> bool:
    """Look at the events, which cost nothing, before nodes are made of them."""
    depth = documents = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        depth += kind.endswith(("MappingStartEvent", "SequenceStartEvent"))
        depth -= kind.endswith(("MappingEndEvent", "SequenceEndEvent"))
        documents += kind == "DocumentStartEvent"
        trouble = ""
        if getattr(event, "anchor", None) is not None:
            trouble = "anchors and aliases (& and *) are not used here; write it out"
        elif getattr(event, "tag", None) is not None:
            trouble = "tags (!) are not used here"
        elif depth > _MAX_DEPTH:
            trouble = f"nested more than {_MAX_DEPTH} deep"
        elif documents > 1:
            trouble = "a second document (---) in the file"
        if trouble:
            place = Position(event.start_mark.line + 1, event.start_mark.column + 1)
            source.problems.append(Problem.at(source.file, place, (), trouble))
            return False
    return True


def _convert(node: Node, loc: Loc, source: Source) -> Any:
    source.values[loc] = Position(node.start_mark.line + 1, node.start_mark.column + 1)
    source.keys.setdefault(loc, source.values[loc])
    if isinstance(node, MappingNode):
        return _mapping(node, loc, source)
    if isinstance(node, SequenceNode):
        return [_convert(item, (*loc, n), source) for n, item in enumerate(node.value)]
    source.written[loc] = str(node.value)
    return _scalar(str(node.value), str(node.tag).removeprefix(_TAG))


def _mapping(node: MappingNode, loc: Loc, source: Source) -> dict[Hashable, Any]:
    result: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        place = Position(key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if not isinstance(key_node, ScalarNode):
            message = "a key must be a word"
            source.problems.append(Problem.at(source.file, place, loc, message))
            continue
        name = str(key_node.value)
        if name in result:
            first = source.keys[(*loc, name)]
            message = f"given twice; the first is in line {first.line}"
            source.problems.append(Problem.at(source.file, place, (*loc, name), message))
            continue
        source.keys[(*loc, name)] = place
        result[name] = _convert(value_node, (*loc, name), source)
        if result[name] is None:  # an empty value has no place of its own
            source.values[(*loc, name)] = place
    return result


def _scalar(text: str, tag: str) -> Any:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        digits = text.replace("_", "").lower()
        return int(digits, 0 if digits.lstrip("+-")[:2] in ("0x", "0o", "0b") else 10)
    if tag == "float":
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return _Date(text) if tag == "timestamp" else text


class _Date:
    """A date: something that is not text, whatever is done with it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text
