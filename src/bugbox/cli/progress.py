# SPDX-License-Identifier: Apache-2.0
"""What is going on, on standard error: one living line on a terminal, notices only elsewhere.

Takes events as they come from the keeper, which are dicts such as
{"type": "StepStarted", "title": "Boot read-me"}. Standard library only.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

from bugbox.cli.out import complain, duration, paint, printable

__all__ = ["Progress", "told"]

_TICK = 0.5
#: Lines that stay on the screen: what was printed as it came need not be printed again.
told: set[str] = set()


class Progress:
    """A context manager; call it with each event."""

    def __init__(self, *, stages: bool = False) -> None:
        """`stages`: where no terminal is, print a line as each step begins."""
        stream = sys.stderr
        self._stages = stages
        self._told: set[str] = set()
        self._live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._steps: list[tuple[str, float]] = []
        self._measure = ""
        self._shown = False
        self._old: Any = None

    def __enter__(self) -> Progress:
        if self._live:
            # A signal and not a thread: it costs the thin commands nothing.
            self._old = signal.signal(signal.SIGALRM, lambda *_: self._draw())
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._old or signal.SIG_DFL)
            self._erase()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        kind, title = event.get("type"), printable(str(event.get("title", "")))
        if kind == "Notice":
            self._line(printable(str(event.get("text", ""))))
        elif kind == "StepStarted":
            self._steps.append((title, time.monotonic()))
            self._measure = ""
            if self._stages and not self._live:
                self._line(f"{title} …")
        elif kind == "Progress":
            self._measure = _measure(event)
        elif kind == "StepFinished":
            self._finish(title, float(event.get("seconds", 0)), bool(event.get("error")))
        if self._live:
            signal.setitimer(signal.ITIMER_REAL, _TICK if self._steps else 0, _TICK)
            self._draw()

    def _finish(self, title: str, seconds: float, failed: bool) -> None:
        self._steps = [step for step in self._steps if step[0] != title]
        self._measure = ""
        if self._live:
            mark = paint("✗", "red", sys.stderr) if failed else paint("✓", "green", sys.stderr)
            self._line(f"{mark} {title}  {paint(duration(seconds), 'dim', sys.stderr)}")

    def _line(self, text: str) -> None:
        """Print a line that stays; the same notice once only."""
        if text in self._told:
            return
        self._told.add(text)
        told.add(text)
        self._erase()
        complain(text)

    def _erase(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _draw(self) -> None:
        if not self._steps:
            self._erase()
            return
        title, begun = self._steps[-1]
        text = f"· {title}{self._measure} … {duration(time.monotonic() - begun)}"
        self._write("\r\x1b[K" + text[: _columns() - 1])
        self._shown = True

    def _write(self, text: str) -> None:
        # os.write, because a signal may have interrupted a print of the same stream.
        os.write(sys.stderr.fileno(), text.encode(errors="replace"))


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80


def _measure(event: Mapping[str, Any]) -> str:
    done, total = int(event.get("done", 0)), int(event.get("total", 0))
    unit = printable(str(event.get("unit", "")))
    if unit in ("B", "bytes"):
        return f" {done >> 20} of {total >> 20} MiB" if total else f" {done >> 20} MiB"
    return f" {done} of {total} {unit}".rstrip() if total else f" {done} {unit}".rstrip()
