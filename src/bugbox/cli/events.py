# SPDX-License-Identifier: Apache-2.0
"""Events of work in this process, shown as those that come from the keeper."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bugbox.cli.progress import Progress
from bugbox.events import Event, listening

__all__ = ["as_dict", "shown"]


@contextmanager
def shown() -> Iterator[None]:
    """Show the progress of the work inside the block."""
    with Progress(stages=True) as progress, listening(lambda event: progress(as_dict(event))):
        yield


def as_dict(event: Event) -> dict[str, Any]:
    """Write an event as it would come from the keeper."""
    return {"type": type(event).__name__, **dataclasses.asdict(event)}
