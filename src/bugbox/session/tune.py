# SPDX-License-Identifier: Apache-2.0
"""Which kernel arguments make a boot faster: what to try, and what was learnt. Pure.

Candidates come from a table of arguments known to matter somewhere, and from the boot's own
report: an initcall, a module or a unit that took long is left out once, to see what that brings.
Whether it may be left out for good is for a person to say: the price stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from bugbox.boottime.advice import Finding
from bugbox.session.race import beats, noise

__all__ = ["KNOWN", "Candidate", "Outcome", "Verdict", "from_findings", "judge", "left", "total"]

Verdict = Literal["helps", "no difference", "breaks the boot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One argument to try."""

    argument: str
    why: str
    price: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What trying one showed; seconds."""

    argument: str
    verdict: Verdict
    gain: float = 0.0
    noise: float = 0.0
    boots: int = 0


KNOWN = (
    Candidate(
        argument="init_on_alloc=0",
        why="Debian's kernel clears every page before it is used",
        price="a bug in the kernel may show old memory",
    ),
    Candidate(
        argument="cryptomgr.notests",
        why="ciphers test themselves when they are registered",
        price="a miscompiled cipher goes unnoticed",
    ),
    Candidate(
        argument="apparmor=0",
        why="AppArmor and its hooks are set up for no profile",
        price="no AppArmor in the machine",
    ),
    Candidate(
        argument="audit=0",
        why="each log-in and each unit writes audit records",
        price="no audit records",
    ),
    Candidate(
        argument="rodata=off",
        why="the kernel's pages are split so that code cannot be written",
        price="a bug may write into the kernel's code",
    ),
    Candidate(
        argument="nowatchdog",
        why="watchdog threads are started for each processor",
        price="a kernel that hangs does not say so",
    ),
    Candidate(
        argument="transparent_hugepage=never",
        why="large pages are cleared whole when first touched",
        price="more page faults in large programs",
    ),
    Candidate(argument="loglevel=0", why="the console prints nothing", price="no errors on it"),
)
#: So many of the report's longest waits are worth an experiment.
_MOST_FROM_REPORT = 6


def from_findings(findings: Iterable[Finding]) -> list[Candidate]:
    """Return an experiment for each long initcall, module and unit: leave it out."""
    found: list[Candidate] = []
    for finding in findings:
        name = finding.name
        if not name or finding.critical is False:
            continue
        if finding.kind == "unit" and name.endswith((".service", ".mount", ".socket")):
            argument, price = f"systemd.mask={name}", f"{name} does not run"
        elif finding.kind == "initcall" and finding.module:
            argument, price = f"module_blacklist={finding.module}", f"no {finding.module}"
        elif finding.kind == "initcall":
            argument, price = f"initcall_blacklist={name}", f"whatever {name} sets up is missing"
        else:
            continue
        why = f"it took {finding.seconds * 1000:.0f} ms of a boot"
        found.append(Candidate(argument=argument, why=why, price=price))
    return found[:_MOST_FROM_REPORT]


def judge(argument: str, without: Sequence[float], with_it: Sequence[float] | None) -> Outcome:
    """Say what boots measured in turn show; `with_it` None: the machine did not come up."""
    if with_it is None:
        return Outcome(argument=argument, verdict="breaks the boot", boots=len(without))
    return Outcome(
        argument=argument,
        verdict="helps" if beats(with_it, without) else "no difference",
        gain=round(median(without) - median(with_it), 4),
        noise=round(max(noise(without), noise(with_it)), 4),
        boots=len(without) + len(with_it),
    )


def left(candidates: Iterable[Candidate], learnt: Mapping[str, Any]) -> list[Candidate]:
    """Return what was not tried yet, each argument once."""
    seen = set(learnt)
    found: list[Candidate] = []
    for candidate in candidates:
        if candidate.argument not in seen:
            seen.add(candidate.argument)
            found.append(candidate)
    return found


def total(learnt: Iterable[Outcome]) -> tuple[str, ...]:
    """Return the arguments worth keeping, the largest gain first."""
    helpful = [outcome for outcome in learnt if outcome.verdict == "helps"]
    return tuple(o.argument for o in sorted(helpful, key=lambda o: -o.gain))
