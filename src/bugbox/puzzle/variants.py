# SPDX-License-Identifier: Apache-2.0
"""Values that differ from session to session, filled into texts as `{{NAME}}`."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Mapping

from bugbox.puzzle.manifest import Variant

__all__ = ["PREFIX", "draw", "environment", "fill", "names", "picks"]

#: Scripts find the value of NAME as $PUZZLE_NAME.
PREFIX = "PUZZLE_"

#: Consonant and vowel in turn: it can be said, and be the name of a host, a user or a file.
_SOUNDS = ("bdgklmnprstvz", "aeiou")

_NAME = re.compile(r"\{\{([A-Z][A-Z0-9_]*)\}\}")


def draw(
    variants: Mapping[str, Variant],
    seed: int | None = None,
    known: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Give each variant a value: the one it has in `known`, else one by chance, or by `seed`.

    The same seed gives the same values, whatever other variants the puzzle gets later.
    """
    kept = known or {}
    return {
        name: kept[name] if name in kept else _draw(variant, _chance(seed, name))
        for name, variant in variants.items()
    }


def _chance(seed: int | None, name: str) -> random.Random:
    return secrets.SystemRandom() if seed is None else random.Random(f"{seed} {name}")


def _draw(variant: Variant, chance: random.Random) -> str:
    if variant.pick is not None:
        return chance.choice(variant.pick)
    if variant.random == "word":
        return "".join(chance.choice(_SOUNDS[n % 2]) for n in range(variant.bytes))
    digits = "0123456789abcdef" if variant.random == "hex" else "0123456789"
    count = 2 * variant.bytes if variant.random == "hex" else variant.bytes
    return "".join(chance.choice(digits) for _ in range(count))


def picks(variants: Mapping[str, Variant], values: Mapping[str, str]) -> dict[str, str]:
    """Return the values that a template is made with: those that are picked from a list."""
    return {name: values[name] for name, variant in variants.items() if variant.pick is not None}


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values as scripts find them."""
    return {PREFIX + name: value for name, value in values.items()}


def fill(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{{NAME}}` that has a value; leave the others as they stand."""
    return _NAME.sub(lambda match: values.get(match[1], match[0]), text)


def names(text: str) -> list[tuple[str, int]]:
    """Return each `{{NAME}}` of the text, with the offset it stands at."""
    return [(match[1], match.start()) for match in _NAME.finditer(text)]
