# SPDX-License-Identifier: Apache-2.0
"""The terminal we were started in: raw while the guest has it, and put right afterwards.

`Raw` sets the line discipline, `Modes` remembers what the guest switched on in the terminal itself
(alternate screen, mouse, bracketed paste …), so that leaving in the middle of an editor leaves
nothing behind. `Signals` turns signals into something that select can wait for.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import termios
from collections.abc import Iterator
from typing import Any

from bugbox.cli.outcome import interrupts

__all__ = ["Modes", "Raw", "Signals", "size"]

# Indexes of the list that tcgetattr returns.
_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6


def size(fd: int) -> tuple[int, int]:
    """Rows and columns of the terminal; 24 x 80 where it does not know."""
    try:
        found = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return found.lines or 24, found.columns or 80


class Raw:
    """A context manager: every byte typed reaches us, and every byte written the terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = termios.tcgetattr(fd)

    def __enter__(self) -> Raw:
        interrupts.restore = self.restore
        self.set()
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        interrupts.restore = None

    def set(self) -> None:
        """Make the terminal raw (again), as cfmakeraw(3) does."""
        attrs = [*self._before[:_CC], [*self._before[_CC]]]
        attrs[_IFLAG] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        attrs[_OFLAG] &= ~termios.OPOST
        attrs[_LFLAG] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        attrs[_CFLAG] = attrs[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        attrs[_CC][termios.VMIN], attrs[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, attrs)

    def restore(self) -> None:
        """Put it back as it was found. TCSANOW: a stopped terminal must not hold us up."""
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Back to lines, echo and Ctrl-C for a moment."""
        self.restore()
        try:
            yield
        finally:
            self.set()


class Modes:
    """What the guest switched on: fed with its output, it knows how to switch it off again."""

    #: DEC private modes that are on in a terminal nobody has touched.
    _ON = frozenset({7, 25})
    _ALTERNATE = (47, 1047, 1049)
    _PRIVATE = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])|\x1b(c)|\x1b([=>])|\x1b\[([<>=])[0-9;]*u")

    def __init__(self) -> None:
        self._changed: dict[int, bool] = {}
        self._keypad = False
        self._kitty = 0
        self._tail = b""

    @property
    def alternate(self) -> bool:
        """Whether a full-screen program has the screen."""
        return any(self._changed.get(mode) for mode in self._ALTERNATE)

    def feed(self, data: bytes) -> None:
        """Look at a piece of output; a sequence may be cut anywhere."""
        if b"\x1b" not in data and not self._tail:
            return
        text = self._tail + data
        end = 0
        for match in self._PRIVATE.finditer(text):
            end = match.end()
            self._note(*match.groups())
        begun = text.rfind(b"\x1b", max(end, len(text) - 48))
        self._tail = text[begun:] if begun >= 0 else b""

    def _note(
        self,
        modes: bytes | None,
        switch: bytes | None,
        reset: bytes | None,
        keypad: bytes | None,
        kitty: bytes | None,
    ) -> None:
        if modes is not None:
            for mode in modes.split(b";"):
                if mode:
                    self._changed[int(mode)] = switch == b"h"
        elif keypad is not None:
            self._keypad = keypad == b"="
        elif kitty is not None:
            self._kitty = max(0, self._kitty + {b">": 1, b"<": -1}.get(kitty, 0))
        elif reset is not None:
            self._changed.clear()
            self._keypad = False

    def undo(self) -> bytes:
        """Return what brings the terminal back, and forget."""
        wrong = {m for m, on in self._changed.items() if on != (m in self._ON)}
        first = [m for m in self._ALTERNATE if m in wrong]
        ordered = [*sorted(wrong - set(first)), *first]
        out = b"".join(b"\x1b[?%d%c" % (m, b"hl"[m not in self._ON]) for m in ordered)
        if self._keypad:
            out += b"\x1b>"
        if self._kitty:
            out += b"\x1b[<%du" % self._kitty
        self._changed.clear()
        self._keypad, self._kitty = False, 0
        return out + b"\x1b[0m" if out else b""


class Signals:
    """A context manager: the named signals make `fileno` readable instead of what they else do."""

    def __init__(self, *wanted: int) -> None:
        self._wanted = wanted

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {n: signal.signal(n, lambda *_: None) for n in self._wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for signo, handler in self._old.items():
            signal.signal(signo, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """For select."""
        return self._read

    def take(self) -> list[int]:
        """Return the signals that came."""
        try:
            return [n for n in os.read(self._read, 256) if n in self._wanted]
        except BlockingIOError:
            return []
