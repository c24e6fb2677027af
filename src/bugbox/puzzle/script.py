# SPDX-License-Identifier: Apache-2.0
"""A script of a puzzle's folder, and how a check's text is made ready for the guest.

A check gets three helpers. They are put where its `#!` line was, on that one line, so that the
line numbers in the shell's own complaints stay true. The injected shell is a busybox ash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Script", "as_typed", "refused_by", "with_helpers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script of the folder, with its text."""

    #: Relative to the folder, such as `checks/space.sh`.
    name: str
    file: Path
    text: bytes = field(repr=False)

    @property
    def label(self) -> str:
        """Its file name alone."""
        return self.file.name


#: Written so that the lines, joined by blanks, are the same program.
_HELPERS = (
    # fail SENTENCE: the check has failed, and this is why.
    """fail() { printf '%s\\n' "$*"; exit 1; };""",
    # A process and all that descends from it.
    "_bugbox_kill() {",
    'for _bugbox_child in $(pgrep -P "$1"); do _bugbox_kill "$_bugbox_child"; done;',
    'kill -9 "$1" 2>/dev/null; };',
    # within SECONDS CMD...: CMD's own status, or 124 when its time was over. CMD may be a function
    # and may read stdin (a background job would otherwise get /dev/null). The watcher ends with
    # CMD and takes its sleep along: a check leaves no process behind.
    "within() {",
    '_bugbox_time=$1; shift; { "$@" <&3 3<&- & } 3<&0; _bugbox_job=$!;',
    "( trap 'kill \"$!\" 2>/dev/null; exit' TERM;",
    'sleep "$_bugbox_time" & wait "$!"; trap "" TERM; _bugbox_kill "$_bugbox_job"; exit 7 )',
    ">/dev/null 2>&1 & _bugbox_watch=$!;",
    'wait "$_bugbox_job" 2>/dev/null; _bugbox_status=$?;',
    'kill "$_bugbox_watch" 2>/dev/null; wait "$_bugbox_watch" 2>/dev/null;',
    'if [ "$?" -eq 7 ]; then return 124; fi; return "$_bugbox_status"; };',
    # Hundredths of a second since the boot: a puzzle may have broken the clock of the day.
    "_bugbox_now() { read -r _bugbox_up _ </proc/uptime || return 1;",
    'echo "${_bugbox_up%.*}${_bugbox_up#*.}"; };',
    # eventually SECONDS CMD...: again and again until CMD ends with 0 (0) or time is over (1).
    "eventually() {",
    "_bugbox_end=$(( $(_bugbox_now) + $1 * 100 )); shift;",
    "while :; do",
    "_bugbox_left=$(( _bugbox_end - $(_bugbox_now) ));",
    'if [ "$_bugbox_left" -le 0 ]; then return 1; fi;',
    'if within $(( (_bugbox_left + 99) / 100 )) "$@"; then return 0; fi;',
    "sleep 0.2; done; };",
)
_ONE_LINE = " ".join(_HELPERS).encode()


def with_helpers(text: bytes) -> bytes:
    """Return a check's text with `fail`, `within` and `eventually` in scope."""
    first, newline, rest = text.partition(b"\n")
    if first.startswith(b"#"):
        first = b""
    return _ONE_LINE + b" " + first + newline + rest


def as_typed(script: Script) -> list[str]:
    """Return the argv that runs a solution as its author means it: typed by the learner.

    With the guest's own shell, the one that its first line names; no file of it is left there.
    """
    text = script.text.decode("utf-8", "surrogateescape")
    first = text.split("\n", 1)[0]
    shell = "/bin/bash" if first.startswith("#!") and "bash" in first else "/bin/sh"
    return [shell, "-c", text]


_REFUSED_BY = re.compile(rb"^#\s*refused by:\s*(.*?)\s*$", re.IGNORECASE)


def refused_by(script: Script) -> tuple[str, int] | None:
    """Return the check a wrong fix names in its first lines, and the line it stands in."""
    for number, line in enumerate(script.text.splitlines()[:10], 1):
        match = _REFUSED_BY.match(line)
        if match:
            return match[1].decode("utf-8", "replace"), number
    return None
