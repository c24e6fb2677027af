# SPDX-License-Identifier: Apache-2.0
"""The command `bugbox`.

start, shell, check, stop and ps are dispatched here, before anything of a third party is loaded:
their start-up is what a person feels. All others, every help text and every mistake in the
arguments go to `cli.app`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from bugbox.cli import fast
from bugbox.cli.ask import check_settings
from bugbox.cli.outcome import guarded, interrupts

__all__ = ["main", "run"]

#: Commands that need no library; each is a function in the module of its name.
THIN = ("start", "shell", "check", "stop", "ps")


def main() -> None:
    """Run the command line and exit with its status."""
    _mend_streams()
    interrupts.install()
    sys.exit(guarded(lambda: run(sys.argv[1:]), sys.argv[1:]))


def _mend_streams() -> None:
    """Open what we were started without, so that no socket gets the number of a standard stream."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def run(argv: Sequence[str]) -> int:
    """Run one command; return its status or raise what went wrong."""
    if argv and argv[0] in THIN:
        command = getattr(import_module(f"bugbox.cli.{argv[0]}"), argv[0])
        try:
            places, names = fast.bind(command, argv[1:])
        except fast.Unparsed:
            pass
        else:
            check_settings()
            status: int = command(*places, **names)
            return status
    return int(import_module("bugbox.cli.app").run(argv))


if __name__ == "__main__":
    main()
