# SPDX-License-Identifier: Apache-2.0
"""A living terminal: our tty on one side, the guest's login on the other, a menu between.

`live` copies bytes both ways until the login ends, we are told to leave, or the terminal is lost.
The menu key opens one line; while it is open the guest's output waits. An action runs with the
terminal back in its usual mode, so that Ctrl-C stops the action and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import termios
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from bugbox.cli.out import printable
from bugbox.cli.raw import Modes, Raw, Signals, size
from bugbox.descriptor import write_all
from bugbox.errors import UserError
from bugbox.keeper import protocol
from bugbox.keeper.client import Terminal
from bugbox.keeper.stream import KeeperGone, Stream, error_of, exit_code

__all__ = ["Action", "End", "Hooks", "escape_key", "key_name", "live"]

_CHUNK = 1 << 16
#: Seconds that a guest on a busy host needs to notice a new size.
_REPAINT = 0.3
#: One key as a terminal sends it: an arrow is several bytes.
_KEY = re.compile(rb"\x1b\[[0-9;:?]*[ -/]*[@-~]|\x1bO.|.", re.DOTALL)
#: What an action says: "" go on, "leave" end the terminal.
Action = Callable[[], str]


class End(NamedTuple):
    """How a terminal ended: exit (with the login's status), detach, quit, leave or lost."""

    how: str
    status: int = 0


class Hooks(NamedTuple):
    """What the caller adds: actions by menu key, and its ear for notices (told to leave or not)."""

    actions: Mapping[str, Action]
    notice: Callable[[Mapping[str, Any]], str] = lambda told: ""


def escape_key(setting: str) -> int | None:
    """Return the byte that `^]` (or `none`) means."""
    if setting == "none":
        return None
    if len(setting) == 2 and setting[0] == "^" and "@" <= setting[1].upper() <= "_":
        return ord(setting[1].upper()) & 0x1F
    raise UserError(f"escape: expected a caret name such as ^], or none; got {setting!r}")


def key_name(escape: int) -> str:
    """Write the key for people."""
    return f"Ctrl-{chr(escape | 0x40).lower()}"


def live(
    link: Terminal | Stream, hooks: Hooks, escape: int | None, *, tty: int = 0, out: int = 1
) -> End:
    """Give the terminal to the guest until one of the ends; it is always put right again."""
    watched = (signal.SIGWINCH, signal.SIGCONT, signal.SIGHUP, signal.SIGTERM)
    with Signals(*watched) as signals, Raw(tty) as raw:
        session = _Live(link, hooks, escape, tty, out, raw, signals)
        try:
            return session.run()
        except BaseException:
            session.new_line()
            raise
        finally:
            session.leave()


class _Live:
    def __init__(
        self,
        link: Terminal | Stream,
        hooks: Hooks,
        escape: int | None,
        tty: int,
        out: int,
        raw: Raw,
        signals: Signals,
    ) -> None:
        self._link, self._hooks, self._raw, self._signals = link, hooks, raw, signals
        self._tty, self._out = tty, out
        self._modes = Modes()
        self._escape = escape
        self._pattern = _escape_pattern(escape)
        #: When the size that `_repaint` changed is to be put right.
        self._right_size_at = 0.0

    def run(self) -> End:
        while True:
            ready = self._wait()
            end = None
            if self._signals in ready:
                end = self._signalled()
            if end is None and self._tty in ready:
                end = self._typed()
            if end is None and (self._link in ready or self._link.ready):
                end = self._received()
            if end is not None:
                return end

    def leave(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            write_all(self._out, self._modes.undo())

    def new_line(self) -> None:
        """Whatever the guest was in the middle of, what comes now starts at the left."""
        self.leave()
        with contextlib.suppress(OSError):
            write_all(self._out, b"\r\n")

    def _wait(self) -> list[Any]:
        wanted: list[Any] = [self._signals, self._link]
        if not self._link.pending:
            wanted.append(self._tty)
        writes = [self._link] if self._link.pending else []
        readable, writable, _ = select.select(wanted, writes, [], self._patience())
        if writable:
            self._link.flush()
        return readable

    def _patience(self) -> float | None:
        """How long to wait for something to happen; put the size right when that is due."""
        if self._link.ready:
            return 0
        if not self._right_size_at:
            return None
        left = self._right_size_at - time.monotonic()
        if left > 0:
            return left
        self._right_size_at = 0.0
        self._link.resize(*size(self._tty))
        return None

    def _signalled(self) -> End | None:
        came = self._signals.take()
        if signal.SIGHUP in came or signal.SIGTERM in came:
            return End("lost")
        if signal.SIGCONT in came:
            with contextlib.suppress(termios.error):  # SIGCONT comes with a hang-up too
                self._raw.set()
        self._link.resize(*size(self._tty))
        return None

    def _read(self) -> bytes:
        try:
            return os.read(self._tty, _CHUNK)
        except OSError:  # EIO: the other end of our terminal is closed
            return b""

    def _typed(self) -> End | None:
        data = self._read()
        if not data:
            return End("lost")
        while self._pattern is not None:
            match = self._pattern.search(data)
            if match is None:
                break
            self._link.stdin(data[: match.start()])
            end, data = self._menu(match.group(), data[match.end() :])
            if end is not None:
                return end
        self._link.stdin(data)
        return None

    def _received(self) -> End | None:
        frames = self._link.receive()
        if frames is None:
            raise KeeperGone("the keeper ended the connection", hint="bugbox ps")
        for kind, payload in frames:
            if kind in (protocol.STDOUT, protocol.STDERR):
                self._modes.feed(payload)
                try:
                    write_all(self._out, payload)
                except OSError:
                    return End("lost")
            elif kind == protocol.EXIT:
                return End("exit", exit_code(payload))
            elif kind == protocol.ERROR:
                raise error_of(json.loads(payload))
            elif kind == protocol.NOTICE:
                end = self._noticed(json.loads(payload))
                if end is not None:
                    return end
        return None

    def _noticed(self, told: Mapping[str, Any]) -> End | None:
        if told.get("text"):
            self._line(printable(str(told["text"])))
        with self._raw.suspended():
            wish = self._hooks.notice(told)
        self._repaint()
        return End(wish) if wish else None

    # The menu.

    def _menu(self, pressed: bytes, rest: bytes) -> tuple[End | None, bytes]:
        """Show the menu, take one key; return how it ended and the typed bytes that are left."""
        assert self._escape is not None
        write_all(self._out, self._place() + _menu_line(self._escape))
        if not rest:
            waited: list[Any] = [self._tty, self._signals]
            ready: list[Any] = select.select(waited, [], [])[0]
            rest = self._read() if self._tty in ready else b"\x1b"  # a signal closes the menu
            if not rest:
                return End("lost"), b""
        write_all(self._out, b"\r\x1b[0m\x1b[K")
        again = self._pattern.match(rest) if self._pattern is not None else None
        if again is not None:
            self._link.stdin(pressed)
            self._repaint()
            return None, rest[again.end() :]
        key = _KEY.match(rest)
        assert key is not None
        end = self._act(key.group().decode("latin-1").lower())
        if end is None:
            self._repaint()
        return end, rest[key.end() :]

    def _act(self, key: str) -> End | None:
        if key == "d":
            return End("detach")
        if key == "q":
            return End("quit")
        action = self._hooks.actions.get(key)
        if action is None:
            return None
        covered = self._modes.alternate
        if covered:
            write_all(self._out, b"\x1b[H\x1b[2J")
        with self._raw.suspended():
            wish = action()
        if wish:
            return End(wish)
        if covered:
            write_all(self._out, b"\r\n\x1b[7m any key: back \x1b[0m")
            select.select([self._tty], [], [])
            self._read()
        return None

    def _place(self) -> bytes:
        """Where the menu goes: the last row of a full-screen program, else a line of its own."""
        return b"\x1b[%d;1H" % size(self._tty)[0] if self._modes.alternate else b"\r\n"

    def _line(self, text: str) -> None:
        write_all(self._out, self._place() + f"\x1b[0;2m[{text}]\x1b[0m\x1b[K\r\n".encode())

    def _repaint(self) -> None:
        """Make whoever draws in the guest draw again, as shells and editors do on a new size.

        The wrong size has to last until they have looked: readline does nothing when it finds
        the size it knows.
        """
        rows, columns = size(self._tty)
        self._link.resize(rows, max(1, columns - 1))
        self._right_size_at = time.monotonic() + _REPAINT


def _escape_pattern(escape: int | None) -> re.Pattern[bytes] | None:
    """Match the key as a byte, and as terminals with richer keyboards write it."""
    if escape is None:
        return None
    # The kitty protocol and xterm's modifyOtherKeys: code of the key, 5 = Ctrl.
    code = ord(chr(escape | 0x40).lower())
    return re.compile(
        rb"%b|\x1b\[%d;5(?::1)?u|\x1b\[27;5;%d~" % (re.escape(bytes([escape])), code, code)
    )


def _menu_line(escape: int) -> bytes:
    entries = "c check  h hint  s story  u undo  d detach  q quit"
    return f"\x1b[0;7m bugbox: {entries}  {key_name(escape)} send it \x1b[0m\x1b[K".encode()
