# SPDX-License-Identifier: Apache-2.0
"""Run a command in a machine, on a terminal or not, and keep what it printed."""

from __future__ import annotations

import json
import select
import time
from typing import Any

from bugbox.errors import GuestError
from bugbox.keeper import protocol
from bugbox.keeper.client import stream
from bugbox.keeper.stream import KeeperGone, error_of, exit_code
from bugbox.paths import Home

__all__ = ["capture"]

_LIMIT = 1 << 20


def capture(
    id: str, argv: list[str], *, timeout: float, terminal: bool = False, variants: bool = False
) -> tuple[int, str]:
    """Return the status and the output, as the learner; GuestError when time runs out.

    With `variants` it finds the session's variants in its environment.
    On a terminal programs print what people see: no progress meter, lines one after the other.
    """
    output = bytearray()
    deadline = time.monotonic() + timeout
    args: dict[str, Any] = {"id": id, "argv": argv, "variants": variants}
    if terminal:
        args.update({"rows": 50, "cols": 100, "term": "dumb"})
    with stream(Home(), "terminal" if terminal else "exec", args) as link:
        if not terminal:
            link.stdin(b"")
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError(f"{argv[-1][:60]!r} did not end within {timeout:.0f} s")
            select.select([link], [], [], 0 if link.ready else left)
            frames = link.receive()
            if frames is None:
                raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
            for kind, payload in frames:
                if kind in (protocol.STDOUT, protocol.STDERR):
                    output += payload[: _LIMIT - len(output)]
                elif kind == protocol.EXIT:
                    return exit_code(payload), output.decode("utf-8", "surrogateescape")
                elif kind == protocol.ERROR:
                    raise error_of(json.loads(payload))
