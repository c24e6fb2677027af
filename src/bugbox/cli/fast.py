# SPDX-License-Identifier: Apache-2.0
"""Read a thin command's arguments from its function's own signature, without a library.

The same function is registered in `cli.app`, which writes its help. What is not plainly right
here raises Unparsed, and `cli.app` then explains it: there are no error messages in this module.

    def stop(*ids: str, all: bool = False, json: bool = False) -> int

means `stop [ID...] [--all] [--json]`. `x: int` takes a whole number, `x: Literal["a", "b"]` one of
these. A parameter named `argv` is what stands after `--`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["SHORT", "Unparsed", "bind", "split"]

#: One-letter spellings, by command.
SHORT: Mapping[str, Mapping[str, str]] = {
    "shell": {"-t": "--tty"},
    "build": {"-o": "--output"},
    "layer": {"-o": "--output"},
    "pack": {"-o": "--output"},
}

_VARARGS = 0x04  # CO_VARARGS of a code object: it takes *args


class Unparsed(Exception):
    """Not plainly right: let the full parser say why, or print the help."""


def split(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Part the words at the first `--`; None when there is none."""
    if "--" not in words:
        return [*words], None
    at = [*words].index("--")
    return [*words[:at]], [*words[at + 1 :]]


def bind(function: Callable[..., int], words: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments to call `function` with."""
    code = function.__code__
    defaults: dict[str, Any] = dict(function.__kwdefaults__ or {})
    types = function.__annotations__
    own, rest = split(words)
    if rest is not None and "argv" not in defaults:
        raise Unparsed
    found: dict[str, Any] = {} if rest is None else {"argv": rest}
    places: list[str] = []
    short = SHORT.get(function.__name__, {})
    left = iter(own)
    for word in left:
        if not word.startswith("-") or word == "-":
            places.append(word)
            continue
        name, equals, value = short.get(word, word).partition("=")
        key = name[2:].replace("-", "_")
        if not name.startswith("--") or key not in defaults or key == "argv" or "_" in name:
            raise Unparsed
        if types[key] == "bool":
            if equals:
                raise Unparsed
            found[key] = True
        else:
            found[key] = _value(value if equals else next(left, None), types[key])
    most = code.co_argcount
    if len(places) > most and not code.co_flags & _VARARGS:
        raise Unparsed
    if len(places) < most - len(function.__defaults__ or ()):
        raise Unparsed
    return [
        _value(v, types[code.co_varnames[i]]) if i < most else v for i, v in enumerate(places)
    ], found


def _value(text: str | None, kind: str) -> Any:
    if text is None or (text.startswith("-") and text != "-"):
        raise Unparsed
    if kind.startswith("int"):
        if not text.isascii() or not text.isdigit():
            raise Unparsed
        return int(text)
    if kind.startswith("Literal") and f"'{text}'" not in kind and f'"{text}"' not in kind:
        raise Unparsed
    return text
