# SPDX-License-Identifier: Apache-2.0
"""bugbox gc: give back what dead processes left."""

from __future__ import annotations

import contextlib

from bugbox.cli.out import complain, document, printable, say
from bugbox.config import load
from bugbox.keeper.client import KeeperGone, request
from bugbox.paths import Home
from bugbox.session import template
from bugbox.session.reaper import collect
from bugbox.storage.file import sweep

__all__ = ["gc"]


def gc(*, verify: bool = False, json: bool = False) -> int:
    """Remove what dead processes left half-made or half-ended, and templates that are too many.

    Sessions that were handed over are never touched, running or not; `bugbox stop` ends those.
    Standby clones go, and are made again after the next start.
    A template whose clone failed goes too, unless a session's disk still lies over its disk.

    Args:
        verify: Read every template first; one that is not as it was published goes.
        json: Print one JSON document.
    """
    home = Home()
    home.prepare()
    drained = []
    with contextlib.suppress(KeeperGone):
        drained = request(home, "drain", start=False)["drained"]
    removed = [f"standby {id}" for id in drained] + collect(home)
    removed += [str(path) for path in sweep(home.tmp)]
    if verify:
        for name in template.verify_all(home):
            complain(f"template {name} is not what was published")
    removed += template.collect(home, load(home).templates_space << 20)
    if json:
        document({"removed": removed})
        return 0
    for each in removed:
        say(f"removed {printable(each)}")
    if not removed:
        complain("nothing was left behind")
    return 0
