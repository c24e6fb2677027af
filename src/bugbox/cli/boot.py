# SPDX-License-Identifier: Apache-2.0
"""bugbox boot: where a boot's time goes, and why; and what makes it shorter."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bugbox.boottime import report as reports
from bugbox.boottime import svg as pictures
from bugbox.boottime import systemd, timeline
from bugbox.cli.ask import ask
from bugbox.cli.out import complain, document, printable, say
from bugbox.errors import UserError

__all__ = ["of_session", "report", "tune"]

#: More than any console log that a person would look at.
_LARGEST = 64 << 20


def report(
    id: str | None = None,
    /,
    *,
    log: Path | None = None,
    svg: Path | None = None,
    compare: tuple[str, str] | None = None,
    json: bool = False,
) -> int:
    """Say where a boot's time went, what waited for what, and what ends each wait.

    Reads our own machines, and anybody's console log or dmesg with kernel timestamps.

    Args:
        id: Which session, or a log's file. Without it, the only session there is.
        log: Read this file instead; - is standard input.
        svg: Write a picture here.
        compare: Two boots, each a session or a file: what the second does faster or slower.
        json: Print one JSON document.
    """
    if compare is not None:
        if id is not None or log is not None or svg is not None:
            raise UserError("--compare takes two boots, and neither ID, --log nor --svg with it")
        first, second = (_of(word) for word in compare)
        difference = reports.compare(first, second)
        if json:
            document(difference)
        else:
            say(printable(reports.compare_text(difference)).rstrip("\n"))
        return 0
    if id is not None and log is not None:
        raise UserError("a session or --log, not both")
    found = _of_file(log) if log is not None else _of(id)
    if svg is not None:
        _write(svg, pictures.draw(found))
    if json:
        document(reports.as_json(found))
    else:
        say(printable(reports.as_text(found)).rstrip("\n"))
    return 0


def _of(word: str | None) -> reports.Report:
    if word is None:
        return of_session(None)
    path = Path(word)
    return _of_file(path) if "/" in word or path.is_file() else of_session(word)


def _of_file(path: Path) -> reports.Report:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_LARGEST)
        else:
            with path.open("rb") as file:
                data = file.read(_LARGEST)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    text = data.decode(errors="replace")
    found = timeline.build(text)
    if not any(line.seconds is not None for line in found.lines):
        raise UserError(
            f"{path}: no line has a kernel timestamp, such as `[    0.142205] i8042: ...`",
            hint="boot with printk.time=1, or take dmesg's output",
        )
    return reports.make("standard input" if str(path) == "-" else path.name, found)


def of_session(id: str | None) -> reports.Report:
    """Ask the keeper about a session's last boot."""
    facts: dict[str, Any] = ask("boot", {"id": id})
    host = facts.get("host")
    if facts.get("clone"):
        complain("this machine is a clone: what follows is the boot of its template")
    startup = systemd.from_show(str(facts["systemd"]))
    found = timeline.build(
        str(facts["dmesg"]),
        startup=startup if startup.units else None,
        milestones={str(name): float(at) for name, at in facts["milestones"].items()},
        host=_host(host) if host else None,
    )
    return reports.make(str(facts["id"]), found)


def _host(told: dict[str, Any]) -> timeline.Host | None:
    """Return what the host saw, unless the machine stood still in between: then nothing fits."""
    if told["started"] > 0.0:
        complain("the machine was paused since it booted: the host's own times are left out")
        return None
    return timeline.Host(
        started=float(told["started"]),
        ready=float(told["ready"]),
        stages=tuple((str(n), float(a), float(b)) for n, a, b in told["stages"]),
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def tune(
    *,
    image: str = "debian-12",
    kernel: str | None = None,
    rounds: int = 4,
    minutes: int = 30,
    again: bool = False,
    json: bool = False,
) -> int:
    """Try kernel arguments against the clock, one by one, and tell which ones help.

    Candidates are a table of known arguments, and whatever took long in a boot with initcall_debug:
    such an initcall, module or unit is left out once. Boots with and without are made in turn; what
    helps beyond the noise is told, with its price. Nothing is changed. What was learnt is kept: the
    same command goes on from there.

    Args:
        image: The base image to boot.
        kernel: A kernel of the store. Without it, the default.
        rounds: How many pairs of boots an argument gets.
        minutes: Stop after so many minutes.
        again: Forget what was learnt.
        json: Print one JSON document.
    """
    from bugbox.cli import tuning  # boots machines: only when asked for

    if not 2 <= rounds <= 50 or not 1 <= minutes <= 24 * 60:
        raise UserError("--rounds: 2 to 50; --minutes: 1 to 1440")
    return tuning.run(image, kernel, rounds, minutes, again=again, json=json)
