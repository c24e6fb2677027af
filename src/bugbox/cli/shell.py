# SPDX-License-Identifier: Apache-2.0
"""bugbox shell: a login in a session's machine, or one command in it. Thin."""

from __future__ import annotations

import json as jsonlib
import os
import select
import signal
import sys
from typing import Any

from bugbox.cli.ask import escape_setting
from bugbox.cli.menu import hooks, introduce
from bugbox.cli.out import complain, printable
from bugbox.cli.raw import Signals, size
from bugbox.cli.terminal import End, escape_key, live
from bugbox.descriptor import write_all
from bugbox.errors import UserError
from bugbox.keeper import protocol
from bugbox.keeper.client import Terminal, stream
from bugbox.keeper.stream import KeeperGone, Stream, error_of, exit_code
from bugbox.paths import Home

__all__ = ["run_command", "shell", "terminal_args"]

_CHUNK = 1 << 16


def shell(
    id: str | None = None,
    /,
    *,
    tty: bool = False,
    root: bool = False,
    user: str | None = None,
    rescue: bool = False,
    no_keeper: bool = False,
    argv: list[str] | None = None,
) -> int:
    """Log in to a session's machine; with `-- CMD` run one command in it.

    A command gets its arguments as they are, without a shell between; its standard input, output
    and errors stay apart, and its status is ours (128 and the number for a signal).

    Args:
        id: Which session. Without it, the only one there is.
        tty: Give the command a terminal, as for an editor; also -t.
        root: Be root.
        user: Be this user of the guest.
        rescue: A shell that needs no file of the guest: where logging in fails.
        no_keeper: Do it in this process, without the keeper.
    """
    if root and user not in (None, "root"):
        raise UserError("--root or --user, not both")
    interactive = tty or (argv is None and sys.stdin.isatty())
    if interactive and not sys.stdin.isatty():
        raise UserError(
            "standard input is not a terminal", hint="leave -t out, or run it in a terminal"
        )
    args: dict[str, Any] = {"id": id, "root": root, "user": user, "rescue": rescue, "argv": argv}
    if interactive:
        return _login(terminal_args(args), plain=argv is not None, alone=no_keeper)
    return run_command({**args, "argv": argv or ["/bin/bash", "-l"]}, alone=no_keeper)


def terminal_args(who: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the keeper's verb `terminal` for the terminal we stand in."""
    rows, cols = size(0)
    return {**who, "rows": rows, "cols": cols, "term": os.environ.get("TERM", "dumb")}


def _open(verb: str, args: dict[str, Any], *, alone: bool) -> Any:
    """Open a Stream or a Terminal: at the keeper, or in this process."""
    if alone:
        from bugbox.cli.alone import open_stream  # loads everything: only when asked for

        return open_stream(Home(), verb, args)
    return Terminal(Home(), args) if verb == "terminal" else stream(Home(), verb, args)


def _login(args: dict[str, Any], *, plain: bool, alone: bool) -> int:
    escape = escape_key(escape_setting(Home()))
    with _open("terminal", args, alone=alone) as link:
        id = str(link.info["id"])
        if not plain:
            introduce(link.info, escape)
        end = live(link, hooks(id), escape)
        if end.how in ("detach", "quit", "leave"):
            link.detach()
    return _after(end, id)


def _after(end: End, id: str) -> int:
    if end.how in ("detach", "quit", "leave"):
        complain(f"\n{id} runs on: bugbox shell {id} goes back, bugbox stop {id} ends it")
        return 0
    return 130 if end.how == "lost" else end.status


def run_command(args: dict[str, Any], *, alone: bool = False) -> int:
    """Run one command with our standard streams; return its status."""
    forwarded = (signal.SIGINT,) if sys.stdin.isatty() else ()
    with _open("exec", args, alone=alone) as link, Signals(*forwarded) as signals:
        return _relay(link, signals)


def _relay(link: Stream, signals: Signals) -> int:
    stdin: int | None = 0
    while True:
        wanted: list[Any] = [link, signals]
        if stdin is not None and not link.full:
            wanted.append(stdin)
        timeout = 0 if link.ready else None
        readable, writable, _ = select.select(wanted, [link] if link.pending else [], [], timeout)
        if writable:
            link.flush()
        for signo in signals.take():
            link.signal(signo)
        if stdin is not None and stdin in readable:
            data = _read(stdin)
            link.stdin(data)
            stdin = stdin if data else None
        if link in readable or link.ready:
            status = _deliver(link.receive())
            if status is not None:
                return status


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # a terminal that is gone
        return b""


def _deliver(frames: list[protocol.Frame] | None) -> int | None:
    if frames is None:
        raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
    for kind, payload in frames:
        if kind in (protocol.STDOUT, protocol.STDERR):
            write_all(1 if kind == protocol.STDOUT else 2, payload)
        elif kind == protocol.EXIT:
            return exit_code(payload)
        elif kind == protocol.ERROR:
            raise error_of(jsonlib.loads(payload))
        elif kind == protocol.NOTICE:
            complain(printable(str(jsonlib.loads(payload).get("text", ""))))
    return None
