# SPDX-License-Identifier: Apache-2.0
"""What a base image is made from, as values: packages, units, files, and their digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bugbox.errors import HostError
from bugbox.image import digest

__all__ = ["File", "Recipe", "UnitRule", "parse_packages", "parse_units"]

#: Raise it when the builder makes something else of the same recipe.
BUILDER = 1

Rule = Literal["on", "off", "mask", "generator"]
_RULES: dict[str, Rule] = {"on": "on", "off": "off", "mask": "mask", "generator": "generator"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRule:
    """One line of a recipe's `units`: what becomes of a unit, and why."""

    rule: Rule
    unit: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file put into the image, owned by root."""

    data: bytes
    executable: bool = False

    @property
    def mode(self) -> int:
        """Permission bits."""
        return 0o755 if self.executable else 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A base image before it is built."""

    name: str
    suite: str
    size_bytes: int
    packages: tuple[str, ...]
    units: tuple[UnitRule, ...]
    #: By path in the image, without a leading slash.
    files: Mapping[str, File]
    #: Shell programs of the build, by name: configure.sh and finish.sh.
    scripts: Mapping[str, bytes]

    def digest(self, kernel_release: str) -> str:
        """Return what names the image: all of the recipe, and whose modules it holds."""
        parts: dict[str, bytes | str] = {
            "builder": str(BUILDER),
            "name": self.name,
            "suite": self.suite,
            "size": str(self.size_bytes),
            "packages": "\n".join(sorted(self.packages)),
            "kernel": kernel_release,
            "preset": self.preset(),
            "masks": "\n".join(sorted(self.masks())),
        }
        for path, file in self.files.items():
            parts[f"file {file.mode:o} {path}"] = file.data
        for name, text in self.scripts.items():
            parts[f"script {name}"] = text
        return digest.of(parts)

    def preset(self) -> str:
        """Return the text of the systemd preset file (systemd.preset(5)) that the rules make."""
        words = {"on": "enable", "off": "disable"}
        return "".join(
            f"# {rule.reason}\n{words[rule.rule]} {rule.unit}\n"
            for rule in self.units
            if rule.rule in words
        )

    def preset_units(self) -> list[str]:
        """Return the units whose preset must be applied when the image is made."""
        return [rule.unit for rule in self.units if rule.rule in ("on", "off")]

    def masks(self) -> list[str]:
        """Return the paths in the image that are links to /dev/null."""
        folders = {"mask": "etc/systemd/system", "generator": "etc/systemd/system-generators"}
        return [f"{folders[r.rule]}/{r.unit}" for r in self.units if r.rule in folders]


def parse_packages(text: str) -> tuple[str, ...]:
    """Return the package names in a recipe's `packages`."""
    names = tuple(line.split("#")[0].strip() for line in text.splitlines())
    found = tuple(name for name in names if name)
    for name in found:
        if len(name.split()) != 1 or found.count(name) > 1:
            raise HostError(f"packages: {name!r} is not one package, named once")
    return found


def parse_units(text: str) -> tuple[UnitRule, ...]:
    """Return the rules in a recipe's `units`; a rule without a reason is an error."""
    rules: list[UnitRule] = []
    for number, line in enumerate(text.splitlines(), start=1):
        content, _, reason = line.partition("#")
        words = content.split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in _RULES or not reason.strip():
            raise HostError(f"units:{number}: expected RULE UNIT # REASON, got {line!r}")
        if any(rule.unit == words[1] for rule in rules):
            raise HostError(f"units:{number}: {words[1]} has two rules")
        rules.append(UnitRule(rule=_RULES[words[0]], unit=words[1], reason=reason.strip()))
    return tuple(rules)
