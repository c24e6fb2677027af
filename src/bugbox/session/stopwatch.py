# SPDX-License-Identifier: Apache-2.0
"""Where the time of a start went, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bugbox.events import span

__all__ = ["Stopwatch"]


class Stopwatch:
    """Add up milliseconds by stage, and from the first moment to now."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside as `name`."""
        begun = time.monotonic()
        try:
            with span(name):
                yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.monotonic() - begun

    def as_ms(self) -> dict[str, int]:
        """Return the total until now, then each stage, in whole milliseconds."""
        total = round((time.monotonic() - self._begun) * 1000)
        return {"total": total} | {name: round(s * 1000) for name, s in self._stages.items()}
