# SPDX-License-Identifier: Apache-2.0
"""What the keeper writes down, in a file that cannot grow without end."""

from __future__ import annotations

import logging
import os
from logging.handlers import RotatingFileHandler

from bugbox.paths import Home

__all__ = ["set_up"]

_LIMIT = 1 << 20


class _Capped(RotatingFileHandler):
    """Keeps one older part, and takes standard error along when it begins a new one."""

    def doRollover(self) -> None:
        super().doRollover()
        if self.stream is not None:
            os.dup2(self.stream.fileno(), 2)


def set_up(home: Home) -> None:
    """Send all logging, warnings and what Python itself complains about to Home.keeper_log."""
    handler = _Capped(home.keeper_log, maxBytes=_LIMIT, backupCount=1)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Each request of the QMP library at INFO would be most of the log.
    logging.getLogger("qemu.qmp").setLevel(logging.ERROR)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
