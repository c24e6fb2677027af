# SPDX-License-Identifier: Apache-2.0
"""bugbox keeper: keep the machines from this terminal, or from a systemd unit."""

from __future__ import annotations

from bugbox.config import load
from bugbox.errors import StateError
from bugbox.keeper.server import serve
from bugbox.paths import Home

__all__ = ["keeper"]


def keeper() -> int:
    """Run the keeper in the foreground; commands start one by themselves otherwise.

    It ends on SIGTERM, and when it has had neither machines nor clients for a while. Machines run
    on, and the next keeper takes them over.
    """
    home = Home()
    if not serve(home, load(home)):
        raise StateError("a keeper runs already", hint="it ends by itself when nothing is to do")
    return 0
