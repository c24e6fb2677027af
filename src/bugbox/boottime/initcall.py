# SPDX-License-Identifier: Apache-2.0
"""What `initcall_debug` prints: how long each start function of the kernel and each probe took."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from bugbox.boottime.kmsg import Line

__all__ = ["Initcall", "collect", "is_noise"]

_CALL = re.compile(
    r"initcall (\S+?)(?:\+0x[0-9a-f]+/0x[0-9a-f]+)?(?: \[(\S+)\])?"
    r" returned (-?\d+) after (\d+) usecs"
)
_PROBE = re.compile(r"probe of (\S+) returned (-?\d+) after (\d+) usecs")
_NOISE = re.compile(
    r"calling  \S+|initcall \S+ .*usecs|probe of \S+ returned |entering initcall level"
)
_LONGEST = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Initcall:
    """One function that ran, or one device that was probed."""

    name: str
    kind: Literal["initcall", "probe"]
    #: The module it is in; empty when built in.
    module: str
    #: Seconds of the kernel's clock.
    start: float
    end: float
    returned: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


def collect(lines: Iterable[Line]) -> list[Initcall]:
    """Return every finished initcall and probe, in the order they ended."""
    found: list[Initcall] = []
    for line in lines:
        if line.seconds is None or "usecs" not in line.text:
            continue
        if match := _CALL.search(line.text):
            name, module, kind = match[1], match[2] or "", "initcall"
        elif match := _PROBE.search(line.text):
            name, module, kind = match[1], "", "probe"
        else:
            continue
        seconds = int(match[match.re.groups][:12]) / 1e6
        if seconds > _LONGEST:
            continue
        found.append(
            Initcall(
                name=name,
                kind="initcall" if kind == "initcall" else "probe",
                module=module,
                start=max(0.0, line.seconds - seconds),
                end=line.seconds,
                returned=int(match[match.re.groups - 1][:12]),
            )
        )
    return found


def is_noise(line: Line) -> bool:
    """Whether a line is initcall_debug's own: what it says has times of its own."""
    return _NOISE.match(line.text) is not None
