# SPDX-License-Identifier: Apache-2.0
"""Keep the host's full disk from ending a snapshot.

When the store of a device mapper snapshot cannot be written, the kernel gives the snapshot up, and
all that was written to it. With other disks the machine only stands still. So a machine on a
snapshot is paused while there is some room left, and says why; `bugbox resume` lets it go on.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import anyio

from bugbox.errors import BugboxError
from bugbox.host.bridge import in_thread
from bugbox.machine.state import State
from bugbox.session.record import Phase
from bugbox.session.session import Session

__all__ = ["NEEDED", "guard", "look"]

log = logging.getLogger(__name__)

#: Bytes that must be free, more than a guest can write between two looks.
NEEDED = 256 << 20
_EVERY = 0.5


async def guard(session: Session) -> None:
    """Look after a session for as long as it lasts."""
    while session.record.phase is Phase.HANDED_OVER:
        await anyio.sleep(_EVERY)
        try:
            await look(session, lambda: shutil.disk_usage(session.ledger.paths.root).free)
        except (BugboxError, OSError) as error:
            log.warning("%s: %s", session.id, error)


async def look(session: Session, free: Callable[[], int]) -> bool:
    """Pause the machine when less than NEEDED is free; whether that was so."""
    machine = session.machine
    if machine is None or machine.state is not State.READY:
        return False
    left = await in_thread(free)
    if left >= NEEDED:
        return False
    session.standing = (
        f"{left >> 20} MiB are free on the host's disk, and its snapshot must not run into its end"
    )
    await session.note_clock()
    await machine.pause()
    log.warning("%s is paused: %s", session.id, session.standing)
    return True
