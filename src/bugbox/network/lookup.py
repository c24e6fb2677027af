# SPDX-License-Identifier: Apache-2.0
"""The addresses of names, as the host's resolver knows them: all asked at once, within a limit."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable

__all__ = ["LIMIT", "looked_up"]

#: Seconds for all of them. A resolver whose first server is dead asks the next one after five.
LIMIT = 10.0


def looked_up(
    names: Iterable[str], limit: float = LIMIT
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the IPv4 addresses of each name, and of those that have none, why.

    Nothing ends a question: one that nobody answers in time goes on in a thread of its own, for as
    long as the host's resolver likes.
    """
    found: dict[str, list[str]] = {}
    failed: dict[str, str] = {}

    def ask(name: str) -> None:
        try:
            raw = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name could be such
            failed[name] = str(error)
        else:
            found[name] = list(dict.fromkeys(str(each[4][0]) for each in raw))

    wanted = list(dict.fromkeys(names))
    asking = [threading.Thread(target=ask, args=(each,), daemon=True) for each in wanted]
    for each in asking:
        each.start()
    until = time.monotonic() + limit
    for each in asking:
        each.join(max(0.0, until - time.monotonic()))
    # What comes later than this is nobody's any more.
    there, not_there = dict(found), dict(failed)
    for name in wanted:
        if name not in there and name not in not_there:
            not_there[name] = f"no answer within {limit:g} s"
    return there, not_there
