# SPDX-License-Identifier: Apache-2.0
"""bugbox console: a machine's serial line, live."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sys
from contextlib import ExitStack
from typing import Any

from bugbox.cli.ask import escape_setting
from bugbox.cli.out import complain, printable
from bugbox.cli.raw import Modes, Raw, Signals
from bugbox.cli.terminal import escape_key, key_name
from bugbox.descriptor import write_all
from bugbox.keeper import protocol
from bugbox.keeper.client import stream
from bugbox.keeper.stream import KeeperGone, Stream, error_of
from bugbox.paths import Home

__all__ = ["console"]

#: A raw terminal goes down without going left.
_LONE_LF = re.compile(rb"(?<!\r)\n")


def console(id: str | None = None, /) -> int:
    """Look at a machine's serial console; what you type goes there.

    The menu key, Ctrl-] if not set otherwise, leaves. Without a terminal it shows what was said,
    and what comes until standard input ends; `bugbox logs --console` only shows.

    Args:
        id: Which session. Without it, the only one there is.
    """
    live = sys.stdin.isatty() and sys.stdout.isatty()
    escape = escape_key(escape_setting(Home())) if live else None
    modes = Modes()
    with ExitStack() as stack:
        link = stack.enter_context(stream(Home(), "console", {"id": id}))
        signals = None
        if live:
            way_out = key_name(escape) if escape is not None else "closing the terminal"
            complain(f"the console; {way_out} leaves")
            signals = stack.enter_context(Signals(signal.SIGHUP, signal.SIGTERM))
            stack.enter_context(Raw(0))
            stack.callback(lambda: write_all(1, modes.undo()))
        _copy(link, signals, escape, modes)
    if live:
        complain("")
    return 0


def _copy(link: Stream, signals: Signals | None, escape: int | None, modes: Modes) -> None:
    heard = False  # whoever has no input at all still gets what was said
    while True:
        wanted: list[Any] = [link] if signals is None else [link, signals]
        if not link.pending and (signals is not None or heard):
            wanted.append(0)
        timeout = 0 if link.ready else None
        readable, writable, _ = select.select(wanted, [link] if link.pending else [], [], timeout)
        if writable:
            link.flush()
        if signals in readable:
            return
        if 0 in readable:
            data = os.read(0, 4096)
            if not data or (escape is not None and escape in data):
                return
            link.stdin(data)
        if link in readable or link.ready:
            heard = True
            if _show(link, modes, signals is not None):
                return


def _show(link: Stream, modes: Modes, live: bool) -> bool:
    """Print what came; True at the end."""
    frames = link.receive()
    if frames is None:
        raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
    for kind, payload in frames:
        if kind == protocol.STDOUT:
            if live:
                modes.feed(payload)
            # Only a live terminal gets the bytes as they are.
            write_all(1, _LONE_LF.sub(b"\r\n", payload) if live else printable(payload).encode())
        elif kind == protocol.EXIT:
            return True
        elif kind == protocol.ERROR:
            raise error_of(json.loads(payload))
    return False
