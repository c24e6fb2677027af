# SPDX-License-Identifier: Apache-2.0
"""The table of known causes: `rules/*.toml`, whose heads say what each field means."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache, cached_property

from bugbox.paths import DATA

__all__ = ["PATTERNS", "Rule", "rules"]

PATTERNS = ("before", "after", "near", "group", "initcall", "unit")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One known cause. Every pattern that it has must be found."""

    id: str
    title: str
    cause: str
    fix: str
    price: str
    source: str
    before: str = ""
    after: str = ""
    near: str = ""
    group: str = ""
    initcall: str = ""
    unit: str = ""
    least: float = 0.0
    most: float = float("inf")

    @cached_property
    def patterns(self) -> dict[str, re.Pattern[str]]:
        """The patterns it has, by field."""
        return {name: re.compile(getattr(self, name)) for name in PATTERNS if getattr(self, name)}


@cache
def rules() -> tuple[Rule, ...]:
    """Return the whole table, the kernel's first."""
    found: list[Rule] = []
    for name in ("kernel", "units"):
        table = tomllib.loads((DATA / "boottime" / "rules" / f"{name}.toml").read_text())
        found += [Rule(id=id, **fields) for id, fields in table.items()]
    return tuple(found)
