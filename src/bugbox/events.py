# SPDX-License-Identifier: Apache-2.0
"""What happens while we work, as values: the core emits, the command line listens.

Nobody below `cli` prints. Work says `with step("Build base image"):`, `notice(...)` and
`progress(...)`; whoever cares wraps the call in `listening(callback)`. Without a listener
events are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = [
    "Event",
    "Notice",
    "Progress",
    "StepFinished",
    "StepStarted",
    "emit",
    "listening",
    "notice",
    "progress",
    "span",
    "step",
    "tracing",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A piece of work that a person would wait for has begun."""

    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """It ended after `seconds`; `error` is empty when it went well."""

    title: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a step is: `done` of `total` (0 = unknown) in `unit`."""

    title: str
    done: int
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One line a person should see once, such as "no KVM here: software emulation"."""

    text: str


Event = StepStarted | StepFinished | Progress | Notice
Listener = Callable[[Event], None]

_listener: ContextVar[Listener | None] = ContextVar("bugbox_listener", default=None)


_spans: ContextVar[list[tuple[str, float, float]] | None] = ContextVar("bugbox_spans", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event emitted inside the block (and in tasks started in it) to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def emit(event: Event) -> None:
    """Give `event` to the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener(event)


def notice(text: str) -> None:
    """Emit one line a person should see."""
    emit(Notice(text=text))


def progress(title: str, done: int, total: int = 0, unit: str = "") -> None:
    """Emit how far `title` is."""
    emit(Progress(title=title, done=done, total=total, unit=unit))


@contextmanager
def tracing() -> Iterator[list[tuple[str, float, float]]]:
    """Collect the spans of the block, and of tasks started in it: name, begin, end (monotonic)."""
    spans: list[tuple[str, float, float]] = []
    token = _spans.set(spans)
    try:
        yield spans
    finally:
        _spans.reset(token)


@contextmanager
def span(name: str) -> Iterator[None]:
    """Note when the block began and ended, if anybody traces."""
    spans = _spans.get()
    begun = time.monotonic()
    try:
        yield
    finally:
        if spans is not None:
            spans.append((name, begun, time.monotonic()))


@contextmanager
def step(title: str) -> Iterator[None]:
    """Emit the start and the end, with its duration, of a piece of work."""
    begun = time.monotonic()
    emit(StepStarted(title=title))
    error = "interrupted"
    try:
        yield
        error = ""
    except Exception as failure:
        error = str(failure) or type(failure).__name__
        raise
    finally:
        emit(StepFinished(title=title, seconds=time.monotonic() - begun, error=error))
