# SPDX-License-Identifier: Apache-2.0
"""`python -m bugbox.keeper`: how a client starts the keeper of a BUGBOX_HOME."""

from __future__ import annotations

import os

from bugbox.config import load
from bugbox.keeper.server import serve
from bugbox.paths import Home

if __name__ == "__main__":
    # What a script had open when its command started us: a lock held for as long as we live, or
    # a pipe whose reader would wait for us.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    home = Home()
    serve(home, load(home))
