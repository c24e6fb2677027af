# SPDX-License-Identifier: Apache-2.0
"""What the types of puzzle.yaml's keys are made of: converters, limits and their words.

A converter raises an error of kind `expected` (its text completes "expected …") or `not_yet`.
`key` declares a field with all that the reference page and the JSON Schema say about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from bugbox.puzzle.quantity import format_duration, format_size, parse_duration, parse_size

__all__ = [
    "DURATION",
    "PATTERNS",
    "SIZE",
    "BaseName",
    "CheckId",
    "Count",
    "DiskName",
    "Flag",
    "FolderName",
    "GuestPath",
    "KernelName",
    "Line",
    "MkfsWord",
    "Model",
    "PuzzleName",
    "RelativePath",
    "SudoCommand",
    "UserName",
    "VariantName",
    "between",
    "key",
    "lasting",
    "limited",
    "one_of",
    "path_trouble",
    "problem",
    "sized",
]


class Model(BaseModel):
    """Frozen, and without room for a key nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def problem(kind: str, text: str) -> PydanticCustomError:
    """Make the error a converter raises; `text` may hold braces."""
    return PydanticCustomError(kind, "{text}", {"text": text})


#: How sizes and durations look in the JSON Schema, which sees the text and not the number.
SIZE = WithJsonSchema({"type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB|TiB)$"})
DURATION = WithJsonSchema({"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"})


def one_of(values: tuple[str, ...]) -> AfterValidator:
    """Take one of some words; the error names the nearest."""

    def choose(value: str) -> str:
        if value not in values:
            near = get_close_matches(value, values, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise problem("expected", f"one of {', '.join(values)}{hint}")
        return value

    return AfterValidator(choose)


def sized(low: int, high: int) -> BeforeValidator:
    """Convert `256MiB` to bytes within the limits."""
    return _quantity(parse_size, format_size, low, high, "a size with its unit, such as 256MiB")


def lasting(low: float, high: float) -> BeforeValidator:
    """Convert `1m30s` to seconds within the limits."""
    example = "a duration with its unit, such as 10s or 5m"
    return _quantity(parse_duration, format_duration, low, high, example)


def _quantity(
    parse: Callable[[str], Any],
    write: Callable[[Any], str],
    low: float,
    high: float,
    example: str,
) -> BeforeValidator:
    def convert(value: object) -> object:
        try:
            number = parse(value) if isinstance(value, str) else None
        except ValueError:
            number = None
        if number is None:
            raise problem("expected", f"{example}, from {write(low)} to {write(high)}")
        if not low <= number <= high:
            raise problem(
                "expected", f"{example.split(' with')[0]} from {write(low)} to {write(high)}"
            )
        return number

    return BeforeValidator(convert)


def between(low: float, high: float, write: Callable[[Any], str] = str) -> str:
    """Word two limits for the reference page."""
    return f"{write(low)} to {write(high)}"


def key(
    kind: str, text: str, *, reader: str = "", default: Any = ..., shown: str | None = None
) -> Any:
    """Declare a key: its type in words, what it means, who reads it ("" = nobody yet).

    `shown` is the default as an author would write it, where the value does not say it.
    """
    extra: dict[str, Any] = {"x-kind": kind, "x-read-by": reader or "nothing yet"}
    if shown is not None:
        extra["x-default"] = shown
    words = text if reader else f"Not supported yet. {text}"
    return Field(default, description=words, json_schema_extra=extra)


def path_trouble(value: str) -> str:
    """Say what is expected instead of a path that is not plainly inside the folder, or ""."""
    parts = value.split("/")
    if value.startswith(("/", "~")):
        return "a path inside the puzzle's folder, not an absolute one"
    if ".." in parts:
        return "a path inside the puzzle's folder, without '..'"
    plain = all(parts) and "." not in parts and value.isprintable()
    return "" if plain else "a plain path such as checks/space.sh"


def _relative(value: str) -> str:
    trouble = path_trouble(value)
    if trouble:
        raise problem("expected", trouble)
    return value


_GUEST_PATH = re.compile(r"(/[A-Za-z0-9_.+@-]+)+")


def _guest_path(value: str) -> str:
    if not _GUEST_PATH.fullmatch(value) or {".", ".."} & {*value.split("/")}:
        raise problem("expected", "a plain absolute path of the guest, such as /var/spool/app")
    return value


_SUDO_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+")


def _sudo_command(value: str) -> str:
    words = value.split(" ")
    plain = all(_SUDO_WORD.fullmatch(word) for word in words[1:])
    if not plain or not _GUEST_PATH.fullmatch(words[0]) or {".", ".."} & {*words[0].split("/")}:
        raise problem(
            "expected",
            "a program's full path, with plain arguments: /usr/bin/systemctl restart app",
        )
    return value


#: What a build has no business with, or has already.
_NOT_FOR_A_BUILD = ("checks", "hints", "solve.d", "wrong.d")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


def _folder(value: str) -> str:
    if not _FOLDER.fullmatch(value) or value in _NOT_FOR_A_BUILD:
        raise problem("expected", "a folder of the puzzle's beside files, such as src")
    return value


#: What image.source has recipes for and puzzles may start from.
_BASES = ("debian-12", "debian-12-tini")


def _base(value: str) -> str:
    name, at, digest = value.partition("@")
    if name not in _BASES:
        raise problem("expected", f"{' or '.join(_BASES)}, the base images of this version")
    hex_digits = digest.removeprefix("sha256:")
    pinned = digest.startswith("sha256:") and len(hex_digits) == 64
    if at and not (pinned and set(hex_digits) <= set("0123456789abcdef")):
        raise problem("expected", f"{name}, or {name}@sha256: and 64 hex digits")
    return value


def _one_line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise problem("expected", "one line of text")
    return value


#: Options of mke2fs that say how a filesystem is laid out, and name no file of the host.
_MKFS = ("-b", "-g", "-i", "-I", "-m", "-N", "-O")


def _mkfs_word(value: str) -> str:
    plain = value.replace(",", "").replace("^", "").replace("_", "").replace(".", "")
    if value not in _MKFS and not (plain.isascii() and plain.isalnum()):
        raise problem("expected", f"one of {', '.join(_MKFS)}, or the value of one")
    return value


def limited(low: int, high: int) -> AfterValidator:
    """Keep a whole number within the limits."""

    def limit(value: int) -> int:
        if not low <= value <= high:
            raise problem("expected", f"a whole number from {low} to {high}")
        return value

    return AfterValidator(limit)


Line = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
RelativePath = Annotated[str, Field(max_length=200), AfterValidator(_relative)]
PuzzleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,62}$")]
CheckId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
UserName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
DiskName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
KernelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$")]
#: A path of the guest that is written into files of it, so nothing in it means anything there.
GuestPath = Annotated[str, Field(max_length=200), AfterValidator(_guest_path)]
FolderName = Annotated[str, AfterValidator(_folder)]
#: One command of a sudoers file, where nothing in it means anything but itself.
SudoCommand = Annotated[str, Field(max_length=200), AfterValidator(_sudo_command)]
MkfsWord = Annotated[str, AfterValidator(_mkfs_word)]
VariantName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
#: What each pattern means, in words.
PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{1,62}$": "2 to 63 lower-case letters, digits and '-', such as read-me",
    r"^[a-z0-9][a-z0-9-]{0,31}$": "up to 32 lower-case letters, digits and '-', such as space",
    r"^[a-z][a-z0-9-]{0,15}$": "up to 16 lower-case letters, digits and '-', such as spool",
    r"^[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}$": "a kernel's version, release or profile",
    r"^[A-Z][A-Z0-9_]{0,31}$": "up to 32 upper-case letters, digits and '_', such as SERVICE",
    r"^[a-z_][a-z0-9_-]{0,31}$": "the name of a user, such as root or learner",
}
BaseName = Annotated[str, AfterValidator(_base)]
Flag = StrictBool
Count = StrictInt
