# SPDX-License-Identifier: Apache-2.0
"""bugbox doctor: what this host has, what it lacks, and the line that brings it."""

from __future__ import annotations

from typing import Any

from bugbox.cli.ask import ask, puzzle_ref
from bugbox.cli.examine import Finding, examine
from bugbox.cli.out import complain, document, paint, printable, say
from bugbox.config import load
from bugbox.paths import Home

__all__ = ["doctor"]

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "missing": ("✗", "red")}
_LACKING = 3


def doctor(*, fit: str | None = None, json: bool = False) -> int:
    """Look at this host: QEMU, KVM, tools, room, rights; status 3 when something is missing.

    Args:
        fit: Say instead how many more machines of this puzzle fit into the host's memory, and why;
            status 3 when none does.
        json: Print one JSON document.
    """
    if fit is not None:
        return _fit(fit, as_json=json)
    home = Home()
    findings = examine(home, load(home))
    missing = [finding for finding in findings if finding.status == "missing"]
    if json:
        document({"ok": not missing, "checks": [_as_json(finding) for finding in findings]})
    else:
        _for_people(findings)
        if missing:
            complain(f"\n{len(missing)} missing" + _one_line_for_all(missing))
    return _LACKING if missing else 0


def _fit(name: str, *, as_json: bool) -> int:
    told = ask("fit", {"puzzle": puzzle_ref(name)})
    if as_json:
        document(told)
    else:
        count = told["fits"]
        say(f"{count} more {'machine' if count == 1 else 'machines'} of {told['name']} fit")
        say(
            f"  each may take {told['each_mib']} MiB: {told['memory_mib']} MiB of its own and "
            f"{told['vmm_mib']} MiB for QEMU"
        )
        for line in told["why"]:
            say(f"  {line}")
        if told["standby_mib"]:
            say(f"  standby clones use {told['standby_mib']} MiB, and give way")
        disk = told["disk"]
        say(
            f"  {disk['free_mib']} MiB of disk are free; each may write "
            f"{disk['each_mib_at_most']} MiB at most, and begins with next to none"
        )
    return 0 if told["fits"] else _LACKING


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "status": finding.status,
        "text": finding.text,
        "fix": finding.fix or None,
    }


def _for_people(findings: list[Finding]) -> None:
    width = max(len(finding.id) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.status]
        say(f"{paint(mark, style)} {finding.id.ljust(width)}  {printable(finding.text)}")
        if finding.fix and finding.status != "ok":
            say(f"  {' ' * width}  {printable(finding.fix)}")


def _one_line_for_all(missing: list[Finding]) -> str:
    packages = sorted({finding.package for finding in missing if finding.package})
    return (
        f"; this brings the packages:\n  apt-get install {' '.join(packages)}" if packages else ""
    )
