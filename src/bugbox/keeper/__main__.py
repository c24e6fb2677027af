# SPDX-License-Identifier: Apache-2.0
"""`python -m bugbox.keeper`: how a client starts the keeper of a BUGBOX_HOME."""

from __future__ import annotations

from bugbox.config import load
from bugbox.keeper.server import serve
from bugbox.paths import Home

if __name__ == "__main__":
    home = Home()
    serve(home, load(home))
