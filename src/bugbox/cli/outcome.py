# SPDX-License-Identifier: Apache-2.0
"""How a command ends: exit status by whose turn it is, Ctrl-C, and the report of a bug of ours.

0 done · 1 failed · 2 the user's mistake · 3 the host lacks something · 4 undecided ·
70 a bug of ours · 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from bugbox.cli.out import STDOUT, complain, document, flush, paint, printable
from bugbox.cli.progress import told
from bugbox.errors import BugboxError, of_the_host
from bugbox.paths import Home

__all__ = ["Interrupts", "guarded", "interrupts", "tell"]

BUG = 70
INTERRUPTED = 130
_TERMINATED = 128 + signal.SIGTERM
#: What a shell reports of a program that wrote to a pipe nobody reads.
_PIPE = 128 + signal.SIGPIPE

_GO_ON = {
    "build": "finished images are kept; the same command goes on from there",
    "start": "all taken back, finished images are kept; the same command goes on from there",
    "play": "finished images are kept; the same command goes on from there",
    "image": "nothing half-made is kept; the same command begins again",
    "reset": "the machine is ended and its changes are gone; the same command makes it afresh",
    "resume": "the machine is off and its disk is kept; the same command boots it",
    "pause": "the machine is as it was",
    "undo": "the machine is off, or was not touched; `bugbox resume` boots its disk",
    "fork": "all taken back; the machine runs on",
    "checkpoint": "nothing half-made is kept; the machine runs on",
    "check": "the check was dropped; the machine runs on",
}


class Interrupts:
    """Ctrl-C: the first raises KeyboardInterrupt, a second one ends the program at once."""

    def __init__(self) -> None:
        self._count = 0
        #: SIGTERM came: everything is taken back as for Ctrl-C, and the status tells it apart.
        self.terminated = False
        #: Puts the terminal right, whatever was going on; set by whoever changed it.
        self.restore: Callable[[], None] | None = None

    def install(self) -> None:
        """Take the signals over."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def forgive(self) -> None:
        """Count from the start: what was interrupted has been dealt with."""
        self._count = 0

    @property
    def status(self) -> int:
        """What the program ends with."""
        return _TERMINATED if self.terminated else INTERRUPTED

    def _handle(self, signo: int, _frame: FrameType | None) -> None:
        self.note(signo)
        self._count += 1
        if self._count > 1:
            self.leave()
        raise KeyboardInterrupt

    def note(self, signo: int) -> None:
        """Remember which signal it was."""
        self.terminated = self.terminated or signo == signal.SIGTERM

    def leave(self) -> None:
        """End at once."""
        if self.restore is not None:
            self.restore()
        os.write(2, b"\nbugbox: ended at once; `bugbox gc` clears up what was left\n")
        os._exit(self.status)


#: The one of this process: a signal's handler is the process's too.
interrupts = Interrupts()


def guarded(function: Callable[[], int], argv: Sequence[str]) -> int:
    """Run a command; turn whatever it raises into words and a status."""
    as_json = "--json" in [*argv][: [*argv].index("--") if "--" in argv else None]
    try:
        status = function()
        flush()
        return status
    except KeyboardInterrupt:
        verb = next((word for word in argv if not word.startswith("-")), "")
        hint = _GO_ON.get(verb)
        word = "terminated" if interrupts.terminated else "interrupted"
        complain(f"\nbugbox: {word}" + (f": {hint}" if hint else ""))
        return interrupts.status
    except SystemExit:
        # Nobody here exits so: it is how the library that prints the help meets a closed pipe.
        return _nobody_reads()
    except BrokenPipeError:
        return _nobody_reads()
    except BugboxError as error:
        return _failed(error, as_json)
    except OSError as error:
        if error.filename == STDOUT:
            _forget_output()
        return _failed(of_the_host(error) or _bug(error, argv), as_json)
    except Exception as error:
        return _failed(_bug(error, argv), as_json)


def tell(error: BugboxError) -> None:
    """Print an error for people: what happened, the evidence, what to do."""
    evidence = [f"  | {printable(line)}" for line in (error.detail or "").rstrip().splitlines()]
    for line in [] if told.issuperset(evidence) else evidence:
        complain(paint(line, "dim", sys.stderr))
    complain(f"{paint('bugbox:', 'red', sys.stderr)} {printable(error.message)}")
    if error.hint:
        complain(f"  hint: {printable(error.hint)}")


def _failed(error: BugboxError, as_json: bool) -> int:
    tell(error)
    if as_json:
        words = {"kind": error.kind, "message": error.message, "hint": error.hint,
                "detail": error.detail, "exit": error.exit_status}  # fmt: skip
        document({"error": words})
    return error.exit_status


def _nobody_reads() -> int:
    _forget_output()
    return _PIPE


def _forget_output() -> None:
    """Throw away what nobody takes: Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: BaseException, argv: Sequence[str]) -> BugboxError:
    """Write the report of an unexpected exception; return what to say about it."""
    import platform  # only on the way out of a crash
    import traceback

    from bugbox import __version__

    text = "\n".join([
        f"bugbox {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"argv: {[*argv]!r}",
        "",
        *traceback.format_exception(error),
    ])  # fmt: skip
    found = BugboxError(
        f"this is a bug of bugbox: {type(error).__name__}: {error}", hint=_report(text)
    )
    found.exit_status = BUG
    return found


def _report(text: str) -> str:
    folder = Home().reports
    file = folder / time.strftime(f"bug-%Y%m%d-%H%M%S-{os.getpid()}.txt")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(text, errors="backslashreplace")
    except OSError as refusal:
        complain(printable(text))
        return f"the report could not be written to {file}: {refusal.strerror}"
    return f"please send the report {file}"
