# SPDX-License-Identifier: Apache-2.0
"""A kernel's configuration as values: our profiles, Linux's `.config`, and where they differ.

A profile is a file of lines `NAME VALUE # REASON` under `image/kernels/`. One that begins with
`include OTHER` changes and adds to the other's lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bugbox.errors import HostError

__all__ = ["Option", "differences", "fragment", "parse_config", "parse_profile"]

_LINE = re.compile(r'([A-Z0-9][A-Z0-9_a-z]*)\s+("[^"]*"|\S+)\s+#\s+(\S.*)')
_INCLUDE = re.compile(r"include\s+([a-z0-9-]+)")
_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_VALUE = re.compile(r'y|n|-?\d+|0x[0-9a-fA-F]+|"[^"]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One line of a profile: what an option is to be, and why."""

    name: str
    #: As in `.config`: y, a number or a quoted text; n: not set.
    value: str
    reason: str


def parse_profile(name: str, read: Callable[[str], str]) -> tuple[Option, ...]:
    """Return a profile's options in order; `read` gives the text of one by its name.

    HostError for a line without a reason, for an option named twice, and for a module: nothing is
    one in a kernel of ours.
    """
    options: dict[str, Option] = {}
    own: set[str] = set()
    for number, line in enumerate(read(name).splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        included = _INCLUDE.fullmatch(text)
        if included and not options:
            options = {option.name: option for option in parse_profile(included[1], read)}
            continue
        match = _LINE.fullmatch(text)
        if match is None or not _VALUE.fullmatch(match[2]):
            raise HostError(f"{name}:{number}: expected NAME VALUE # REASON, got {line!r}")
        if match[1] in own:
            raise HostError(f"{name}:{number}: {match[1]} has two lines")
        own.add(match[1])
        options[match[1]] = Option(name=match[1], value=match[2], reason=match[3])
    return tuple(options.values())


def fragment(options: Iterable[Option]) -> str:
    """Return what `make allnoconfig` reads with KCONFIG_ALLCONFIG."""
    return "".join(
        f"# CONFIG_{o.name} is not set\n" if o.value == "n" else f"CONFIG_{o.name}={o.value}\n"
        for o in options
    )


def parse_config(text: str) -> dict[str, str]:
    """Return what a `.config` sets."""
    matches = (_SET.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2] for match in matches if match}


def differences(options: Iterable[Option], config: Mapping[str, str]) -> list[str]:
    """Return a sentence for each option that did not become what it was to be."""
    return [
        f"{o.name} was to be {o.value} ({o.reason}) and is {config.get(o.name, 'n')}"
        for o in options
        if config.get(o.name, "n") != o.value
    ]
