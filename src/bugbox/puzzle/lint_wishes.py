# SPDX-License-Identifier: Apache-2.0
"""What looks wrong in what a manifest asks for, although each key alone is well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from bugbox.puzzle.definition import Puzzle

__all__ = ["WishFinding", "wish_findings"]

#: Programs from which one gets a shell: as root by sudo, they are all that root may do.
_SHELLS = re.compile(
    r"(ba|da|rba)?sh|[gm]?awk|busybox|ed|emacs|env|find|gdb|git|less|lua|man|mc|more|nano|nmap|perl|"
    r"python3|rsync|ruby|screen|script|sed|strace|su|sudo|tar|tcpdump|tmux|vim?(\..*)?|watch|xargs"
)


@dataclass(frozen=True, slots=True)
class WishFinding:
    """One thing to look at; the message begins with the top key that it is about."""

    rule: str
    message: str


def wish_findings(puzzle: Puzzle) -> Iterator[WishFinding]:
    """Look at the manifest's wishes."""
    for command in puzzle.manifest.user.commands:
        program, _, arguments = command.partition(" ")
        if _SHELLS.fullmatch(PurePosixPath(program).name) and not arguments:
            text = f"user: sudo {program} with any arguments gives a root shell"
            yield WishFinding("sudo-shell", text)
    egress = puzzle.manifest.network.egress
    if egress not in ("none", "full") and any(check.probe for check in puzzle.checks):
        text = "network: egress does not go with checks from outside; it is refused at its start"
        yield WishFinding("egress-probe", text)
    if puzzle.manifest.check_policy.trigger == "auto":
        for check in puzzle.checks:
            if check.where == "clone" and not check.needs:
                text = (
                    f"check_policy: {check.id} would copy the machine all the time; give it needs"
                )
                yield WishFinding("auto-clone", text)
