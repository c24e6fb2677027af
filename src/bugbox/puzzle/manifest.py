# SPDX-License-Identifier: Apache-2.0
"""The keys of puzzle.yaml as types: pure values, no file is looked at here.

`docs/reference/puzzle-format.md` and the published JSON Schema are made from these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bugbox.puzzle.keys import (
    DURATION,
    BaseName,
    CheckId,
    Count,
    Flag,
    KernelName,
    Line,
    Model,
    PuzzleName,
    RelativePath,
    UserName,
    VariantName,
    between,
    key,
    lasting,
    limited,
    problem,
)
from bugbox.puzzle.machine_keys import BOOT_TIMEOUT, Boot, Build, Machine, User
from bugbox.puzzle.network_keys import Network
from bugbox.puzzle.probe_keys import Probe
from bugbox.puzzle.quantity import format_duration
from bugbox.puzzle.session_keys import Access, SessionLimits

__all__ = ["CheckEntry", "HintEntry", "Manifest"]

_CHECK_TIMEOUT = (1, 600)
_REPEAT = (1, 100)
_POINTS = (0, 1_000_000)


class Author(Model):
    """Somebody to thank."""

    name: Line = key("text", "The author's name.", reader="show")
    url: Line | None = key("text", "A page of the author's.", reader="show", default=None)
    email: Line | None = key("text", "Where to write to.", reader="show", default=None)


class Port(Model):
    """A port that `forward` and `serve` may open."""

    name: CheckId = key("slug", "Its name, which `forward` takes too.", reader="forward")
    port: Annotated[Count, limited(1, 65535)] = key(
        between(1, 65535), "TCP port on the guest's 127.0.0.1.", reader="forward"
    )
    protocol: Literal["tcp", "http"] = key(
        "`tcp` or `http`", "What it speaks.", reader="forward", default="tcp"
    )
    path: Line | None = key("text", "Path of its page.", reader="forward", default=None)
    show: Flag = key("flag", "Whether `show` tells of it.", reader="show", default=False)


class Variant(Model):
    """A value that differs from session to session."""

    pick: Annotated[tuple[Line, ...], Field(min_length=1, max_length=16)] | None = key(
        "list of text, 1 to 16", "One of these.", reader="session", default=None
    )
    random: Literal["hex", "digits", "word"] | None = key(
        "`hex`, `digits` or `word`",
        "Drawn for each session. A `word` is of letters that can be said, such as `gamoteku`.",
        reader="session",
        default=None,
    )
    bytes: Annotated[Count, limited(1, 64)] = key(
        between(1, 64),
        "How long: two hex digits a byte, or so many digits or letters.",
        reader="session",
        default=8,
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Variant:
        if (self.pick is None) == (self.random is None):
            raise problem("expected", "either pick: [...] or random: hex")
        return self


class CheckEntry(Model):
    """One assertion about the machine."""

    id: CheckId = key("slug", "Its name in `needs` and in reports; unique.", reader="check")
    title: Line = key("text", "What is true when it passes.", reader="check")
    run: RelativePath | None = key(
        "path", "Its script; needed but where there is a `probe`.", reader="check", default=None
    )
    user: UserName = key("user name", "Who runs it in the guest.", reader="check", default="root")
    timeout: Annotated[float, lasting(*_CHECK_TIMEOUT), DURATION] = key(
        f"duration, {between(*_CHECK_TIMEOUT, format_duration)}",
        "Afterwards it counts as broken.",
        reader="check",
        default=10.0,
        shown="10s",
    )
    needs: tuple[CheckId, ...] = key(
        "list of check ids", "Skipped unless these passed.", reader="check", default=()
    )
    where: Literal["guest", "clone", "outside"] = key(
        "`guest`, `clone` or `outside`",
        "`clone`: in a copy of the running machine, thrown away after. `outside` takes a `probe`.",
        reader="check",
        default="guest",
    )
    after: Literal["reboot"] | None = key(
        "`reboot`",
        "The clone is rebooted first; with `where: clone`.",
        reader="check",
        default=None,
    )
    probe: Probe | None = key(
        "mapping",
        "With `where: outside`: what is sent from the host through the network card.",
        reader="check",
        default=None,
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> CheckEntry:
        if self.where == "outside":
            if self.probe is None or self.run is not None:
                raise problem("expected", "probe, and no run, beside where: outside")
            if "user" in self.model_fields_set:
                raise problem("expected", "no user beside probe: nobody runs it in the guest")
        elif self.probe is not None:
            raise problem("expected", "where: outside beside probe")
        elif self.run is None:
            raise problem("expected", "run, the check's script (or where: outside and a probe)")
        return self


class CheckPolicy(Model):
    """When checks run, and what is told."""

    trigger: Literal["manual", "auto"] = key(
        "`manual` or `auto`",
        "With `auto`, also by itself while somebody works in the machine, every 5 s at most; only "
        "that it is solved is told.",
        reader="session",
        default="manual",
    )
    min_interval: Annotated[float, lasting(0, 3600), DURATION] = key(
        f"duration, {between(0, 3600, format_duration)}",
        'The shortest time between two; binds under `serve` or `limits = "on"`, and nobody on '
        "one's own machine.",
        reader="show, check",
        default=0.0,
        shown="0s",
    )
    show_failures: Literal["first", "all"] = key(
        "`first` or `all`",
        "With `first`, only the first check that fails says why.",
        reader="check",
        default="all",
    )
    mode: Literal["level", "edge"] = key(
        "`level` or `edge`",
        "With `edge`, a check that has passed counts as passed until a reset; with `level`, all "
        "must hold at once.",
        reader="check",
        default="level",
    )


class HintEntry(Model):
    """One step of help."""

    title: Line = key("text", "What it helps with; no spoiler.", reader="hint")
    file: RelativePath = key("path", "Its text, Markdown.", reader="hint")
    not_before: Annotated[float, lasting(0, 86400), DURATION] = key(
        "duration",
        "Meant for after this time; binds as `check_policy.min_interval` does.",
        reader="hint",
        default=0.0,
        shown="0s",
    )
    not_before_checks: Annotated[Count, limited(0, 1000)] = key(
        between(0, 1000), "Meant for after this many failed checks.", reader="hint", default=0
    )
    cost: Annotated[Count, limited(0, 1000)] = key(
        between(0, 1000), "Points it costs, of `scoring.points`.", reader="hint, check", default=0
    )


class Solution(Model):
    """The reference solution."""

    script: RelativePath | None = key(
        "path", "Solves it.", reader="play --demo", default=None, shown="solve.sh, if there"
    )
    walkthrough: RelativePath | None = key(
        "path",
        "The solution, told.",
        reader="solution",
        default=None,
        shown="solution.md, if there",
    )
    alternatives: RelativePath = key(
        "path", "The folder of the other ways.", reader="test", default="solve.d"
    )
    reveal: Literal["solved_or_given_up"] = key(
        "`solved_or_given_up`", "When it is shown.", reader="solution", default="solved_or_given_up"
    )


class Scoring(Model):
    """What a solution is worth."""

    points: Annotated[Count, limited(*_POINTS)] = key(
        between(*_POINTS), "For a solution; hints cost theirs.", reader="check", default=0
    )
    first_try_bonus: Annotated[Count, limited(*_POINTS)] = key(
        between(*_POINTS), "On top, when no check has failed before.", reader="check", default=0
    )


class TestPlan(Model):
    """How `test` goes about it."""

    repeat: Annotated[Count, limited(*_REPEAT)] = key(
        between(*_REPEAT), "How often each solution runs.", reader="test", default=1
    )
    boot_budget: Annotated[float | None, lasting(*BOOT_TIMEOUT), DURATION] = key(
        f"duration, {between(*BOOT_TIMEOUT, format_duration)}",
        "A boot that takes longer fails the test.",
        reader="test",
        default=None,
    )
    wrong: RelativePath = key(
        "path", "The folder of what is no fix.", reader="test", default="wrong.d"
    )
    forbid_text_in_guest: tuple[Line, ...] = key(
        "list of text", "What no file of the layer may hold.", reader="test", default=()
    )


class Manifest(Model):
    """puzzle.yaml."""

    format: Literal[1] = Field(
        alias="schema",
        description="Version of this format.",
        json_schema_extra={"x-kind": "`1`", "x-read-by": "every command"},
    )
    name: PuzzleName = key("slug", "The folder's name.", reader="every command")
    title: Line = key("text", "What a learner sees first.", reader="list, show, play")
    summary: Line = key("text", "One sentence for the catalogue.", reader="list, show")
    checks: Annotated[tuple[CheckEntry, ...], Field(min_length=1, max_length=64)] = key(
        "list, 1 to 64", "What must be true of a solved machine.", reader="check"
    )
    version: Line | None = key("text, quoted", "Yours to count.", reader="show", default=None)
    description: RelativePath = key(
        "path",
        "What the learner reads: symptom, goal, rules.",
        reader="show, play",
        default="description.md",
    )
    difficulty: Literal["easy", "medium", "hard", "expert"] | None = key(
        "`easy`, `medium`, `hard` or `expert`", "How hard.", reader="list, show", default=None
    )
    estimated_time: Annotated[float | None, lasting(0, 86400), DURATION] = key(
        "duration", "How long a learner needs.", reader="list, show", default=None
    )
    categories: tuple[Line, ...] = key("list of text", "Subjects.", reader="show", default=())
    tags: tuple[Line, ...] = key("list of text", "Words to find it by.", reader="show", default=())
    skills: tuple[Line, ...] = key("list of text", "What it teaches.", reader="show", default=())
    authors: tuple[Author, ...] = key("list", "Who made it.", reader="show", default=())
    license: Line | None = key("text", "SPDX identifier.", reader="show", default=None)
    inspired_by: Line | None = key("text", "A real incident.", reader="show", default=None)
    language: Line = key("text", "Language of its texts.", reader="show", default="en")
    base: BaseName = key(
        "`debian-12` or `debian-12-tini`, each also with `@sha256:…`",
        "The image beneath; with a digest, that very one.",
        reader="build, session",
        default="debian-12",
    )
    kernel: KernelName | None = key(
        "text, quoted",
        'What it boots, by version, release or profile: `"6.1"`, `fast`. One of `bugbox kernel '
        "list`.",
        reader="session",
        default=None,
        shown="the base image's",
    )
    arch: tuple[Literal["x86_64"], ...] = key(
        "list of `x86_64`", "Where it runs.", reader="lint", default=("x86_64",), shown="[x86_64]"
    )
    machine: Machine = key("mapping", "The virtual machine.", reader="session", default=Machine())
    network: Network = key("mapping", "Networks.", reader="session", default=Network())
    build: Build = key("mapping", "The layer.", reader="build", default=Build())
    boot: Boot = key("mapping", "The way up.", reader="session", default=Boot())
    user: User = key("mapping", "The learner's account.", reader="session", default=User())
    guest_client: Flag = key(
        "flag", "Whether `bugbox` can be typed in the guest.", reader="session", default=True
    )
    access: Access = key("mapping", "Ways in.", reader="session", default=Access())
    ports: Annotated[tuple[Port, ...], Field(max_length=32)] = key(
        "list, up to 32", "Ports that `forward` may open.", reader="forward", default=()
    )
    variants: dict[VariantName, Variant] = key(
        "mapping",
        "Values that differ: `{{NAME}}` in texts, `$PUZZLE_NAME` in scripts.",
        reader="session",
        default={},
    )
    check_policy: CheckPolicy = key(
        "mapping", "When checks run.", reader="check", default=CheckPolicy()
    )
    hints: tuple[HintEntry, ...] | None = key(
        "list", "Help, step by step.", reader="hint", default=None, shown="hints/*.md"
    )
    solution: Solution = key("mapping", "The solution.", reader="solution", default=Solution())
    debrief: RelativePath | None = key(
        "path",
        "Read after solving: why it happened.",
        reader="play",
        default=None,
        shown="debrief.md, if there",
    )
    session: SessionLimits = key("mapping", "Its time.", reader="session", default=SessionLimits())
    scoring: Scoring = key("mapping", "Points for a solution.", reader="check", default=Scoring())
    requires: tuple[PuzzleName, ...] = key(
        "list of puzzles", "Better solved first; advice.", reader="show, play", default=()
    )
    next: tuple[PuzzleName, ...] = key(
        "list of puzzles", "Where to go on.", reader="play", default=()
    )
    test: TestPlan = key("mapping", "How `test` goes about it.", reader="test", default=TestPlan())
