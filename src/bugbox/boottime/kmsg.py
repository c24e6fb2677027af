# SPDX-License-Identifier: Apache-2.0
"""Read a boot log as people have it: a console's, dmesg's, a journal's, a VMM's lines between.

One `Line` comes out for each line that goes in, whatever stands there: what cannot be understood is
kept as it is, without a time. Times are seconds of the kernel's own clock.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["Line", "Source", "last_boot", "parse"]

#: Who wrote a line: the kernel; a program through the kernel's log; the VMM; anybody else.
Source = Literal["kernel", "program", "vmm", "other"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a log."""

    #: Counts from 1.
    number: int
    #: None: the line has no time of the kernel's clock.
    seconds: float | None
    #: Without time, colours and log level.
    text: str
    source: Source


# Colours and cursor movements (CSI), titles (OSC), two-byte escapes; then other control bytes.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\x85]")
# "<6>[    0.142205] text", and with the caller of CONFIG_PRINTK_CALLER: "[    0.14][    T1] text".
_STAMP = r"\[ {0,11}(\d{1,9}\.\d{3,9})\](?:\[ *[TC]\d+\])?"
_FIRST = re.compile(rf"(?:<\d{{1,3}}>)?\s*{_STAMP} ?(.*)", re.DOTALL)
_INSIDE = re.compile(rf"{_STAMP} (.*)", re.DOTALL)
# journalctl -k: "Jan 29 09:14:10 host kernel: [    0.14] text"; short-monotonic has the time first.
_JOURNAL = re.compile(
    r"(?:[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S+ )?(?:kernel|\S+\[\d+\]): (.*)", re.DOTALL
)
_SHORT_MONOTONIC = re.compile(rf"{_STAMP} (\S+) (\S+?(?:\[\d+\])?): (.*)", re.DOTALL)
# Firecracker: "2021-01-29T09:14:10.315589518 [name:WARN:src/...] text";
# cloud-hypervisor: "cloud-hypervisor: 1.2s: <vmm> ...".
_VMM = re.compile(
    r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-][\d:]+)? \[[^\]]*:(?:TRACE|DEBUG|INFO|WARN|ERROR)[:\]]"
    r"|cloud-hypervisor: +[\d.]+m?s: |qemu-system-\S+: "
)
#: A guest may write lines of any length; what a person reads of one is not longer.
_LONGEST = 4000
_PROGRAM = re.compile(r"[A-Za-z@_.-]+\[\d+\]: ")


def parse(text: str) -> list[Line]:
    """Return a `Line` for every line of `text`; a newline ends a line, nothing else does."""
    parts = text.split("\n")
    if parts[-1] == "":
        parts.pop()
    return [_line(number, part) for number, part in enumerate(parts, start=1)]


def _line(number: int, raw: str) -> Line:
    text = _CONTROL.sub("", _ESCAPES.sub("", raw[:_LONGEST])).rstrip()
    if _VMM.match(text):
        return Line(number=number, seconds=None, text=text, source="vmm")
    found = _SHORT_MONOTONIC.match(text)
    if found and found[3].split("[")[0] in ("kernel", "systemd"):
        who = "" if found[3] == "kernel" else f"{found[3]}: "
        return _stamped(number, found[1], who + found[4])
    found = _FIRST.match(text)
    if found:
        return _stamped(number, found[1], found[2])
    journal = _JOURNAL.match(text)
    if journal and (found := _FIRST.match(journal[1])):
        return _stamped(number, found[1], found[2])
    # Two writers met on one console: "         Starting foo...[    1.234567] text".
    inside = _INSIDE.search(text)
    if inside:
        return _stamped(number, inside[1], inside[2])
    return Line(number=number, seconds=None, text=text, source="other")


def _stamped(number: int, seconds: str, text: str) -> Line:
    source: Source = "program" if _PROGRAM.match(text) else "kernel"
    return Line(number=number, seconds=float(seconds), text=text, source=source)


def last_boot(lines: list[Line]) -> tuple[list[Line], int]:
    """Return the lines of the last boot in a log, and how many boots it holds.

    A boot begins where the kernel names its version, or where the clock falls back by a second.
    """
    begins: list[int] = []
    latest = 0.0
    for index, line in enumerate(lines):
        if line.seconds is None:
            continue
        named = line.text.startswith("Linux version ") and line.seconds < 1.0
        if (named and (latest > 0.0 or not begins)) or line.seconds < latest - 1.0:
            begins.append(index)
            latest = 0.0
        latest = max(latest, line.seconds)
    # What stands before the first boot (firmware, a VMM) belongs to it.
    return lines[begins[-1] if len(begins) > 1 else 0 :], max(1, len(begins))
