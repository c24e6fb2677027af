# SPDX-License-Identifier: Apache-2.0
"""bugbox gc: give back what dead processes left."""

from __future__ import annotations

from bugbox.cli.out import complain, document, printable, say
from bugbox.paths import Home
from bugbox.session.reaper import collect
from bugbox.storage.file import sweep

__all__ = ["gc"]


def gc(*, json: bool = False) -> int:
    """Remove what dead processes left half-made or half-ended.

    Sessions that were handed over are never touched, running or not; `bugbox stop` ends those.

    Args:
        json: Print one JSON document.
    """
    home = Home()
    home.prepare()
    removed = [*collect(home), *(str(path) for path in sweep(home.tmp) or ())]
    if json:
        document({"removed": removed})
        return 0
    for each in removed:
        say(f"removed {printable(each)}")
    if not removed:
        complain("nothing was left behind")
    return 0
