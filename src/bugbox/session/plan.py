# SPDX-License-Identifier: Apache-2.0
"""What a session is to be: a puzzle's wishes, or a bare image's, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bugbox.puzzle.definition import Puzzle, Script
from bugbox.puzzle.machine_keys import ExtraDisk
from bugbox.puzzle.session_keys import Access, SessionLimits
from bugbox.puzzle.variants import draw, environment, picks

__all__ = ["Plan", "another", "of_image", "of_puzzle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything about a session that does not depend on the host."""

    name: str
    title: str
    base: str
    #: None for a bare machine.
    puzzle: Puzzle | None = None
    user: str = "learner"
    vcpus: int = 1
    mem_mib: int = 256
    disk_bytes: int = 2 << 30
    boot_timeout: float = 60.0
    guest_client: bool = True
    #: Its time, and whether it may be paused while nobody uses it.
    limits: SessionLimits = field(default_factory=SessionLimits)
    #: The ways in.
    access: Access = field(default_factory=Access)
    #: The machine is to be saved and cloned: nothing of one session's own happens in it.
    template: bool = False
    #: A kernel of the store by its release; empty: Debian's newest, which also builds.
    kernel: str = ""
    #: Added to the kernel's arguments; one of the same name replaces ours.
    kernel_args: tuple[str, ...] = ()
    #: Disks that come with the session, by name: raw images that it writes a copy of its own over.
    carried: tuple[tuple[str, Path], ...] = ()
    #: A bare machine's layer, by its key in the store; empty: none.
    layer: str = ""
    #: Further empty disks, made afresh for each session.
    disks: tuple[ExtraDisk, ...] = ()
    #: What its puzzle asks to reach outside: none, dns, full, or "host:port" of each.
    egress: str | tuple[str, ...] = "none"
    #: Some of its checks are sent through a network card.
    probed: bool = False
    #: The session's variants, by name.
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def clonable(self) -> bool:
        """Whether a template can be made of it: the root's disk is the only one."""
        return not self.carried and not self.disks

    @property
    def pausable(self) -> bool:
        """Whether it may be paused while nobody uses it."""
        return self.limits.pausable

    @property
    def env(self) -> dict[str, str]:
        """What session.sh, ready.sh, checks and solutions find in their environment."""
        return environment(self.values)

    @property
    def shared_env(self) -> dict[str, str]:
        """What boot.sh and break.sh find: what all clones of a template have in common."""
        return environment(picks(self.puzzle.manifest.variants, self.values) if self.puzzle else {})

    @property
    def folder(self) -> Path | None:
        """The puzzle's folder."""
        return self.puzzle.folder if self.puzzle else None

    @property
    def boot(self) -> Script | None:
        """Runs at every boot: the surroundings."""
        return self.puzzle.boot if self.puzzle else None

    @property
    def break_(self) -> Script | None:
        """Runs once: the faults that live in memory."""
        return self.puzzle.break_ if self.puzzle else None

    @property
    def session(self) -> Script | None:
        """Runs once in each session: what only this learner's machine has."""
        return self.puzzle.session if self.puzzle and not self.template else None

    @property
    def ready(self) -> Script | None:
        """Says whether the untouched machine is broken as told."""
        if self.puzzle is None or (self.template and self.puzzle.session):
            return None  # it may ask for what session.sh has still to do
        return self.puzzle.ready


def of_puzzle(
    puzzle: Puzzle, *, seed: int | None = None, known: Mapping[str, str] | None = None
) -> Plan:
    """Read a puzzle's wishes; draw its variants, by `seed` if there is one, but for the `known`."""
    wishes = puzzle.manifest
    return Plan(
        name=puzzle.name,
        title=puzzle.title,
        base=puzzle.base,
        puzzle=puzzle,
        user=wishes.user.name,
        vcpus=wishes.machine.vcpus,
        mem_mib=-(-wishes.machine.memory // (1 << 20)),
        disk_bytes=wishes.machine.disk,
        boot_timeout=wishes.boot.timeout,
        guest_client=wishes.guest_client,
        limits=wishes.session,
        access=wishes.access,
        disks=wishes.machine.disks,
        egress=wishes.network.egress,
        probed=any(check.probe is not None for check in puzzle.checks),
        values=draw(wishes.variants, seed, known),
    )


def another(plan: Plan) -> Plan:
    """Return the plan of another session of the same template: other random variants."""
    if plan.puzzle is None:
        return plan
    wishes = plan.puzzle.manifest.variants
    return replace(plan, values=draw(wishes, None, picks(wishes, plan.values)))


def of_image(name: str, layer: str = "") -> Plan:
    """Describe a machine with nothing but the base image in it, or with a layer of the store."""
    return Plan(
        name=name, title=f"A machine with {name}", base=name, guest_client=False, layer=layer
    )
