# SPDX-License-Identifier: Apache-2.0
"""A puzzle's folder as values: the manifest, the scripts and the texts, read once and checked.

A `Puzzle` holds what it needs in memory, so that nobody opens a file of the folder a second time,
when it may have become a link to somewhere else. `load` raises one DefinitionError that lists
every problem, each with file, line, column and key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bugbox.puzzle.manifest import Manifest

__all__ = ["Check", "HintText", "Puzzle", "Script", "load"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One assertion about the machine."""

    id: str
    title: str
    script: Script
    user: str = "root"
    timeout_s: float = 10.0
    needs: tuple[str, ...] = ()
    #: guest or clone.
    where: str = "guest"
    #: reboot, or None.
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HintText:
    """One step of help, as the author wrote it."""

    title: str
    text: str
    not_before_s: float = 0.0
    not_before_checks: int = 0
    cost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle:
    """Everything in a puzzle's folder but the contents of `files/`."""

    #: Absolute, without symbolic links.
    folder: Path
    manifest: Manifest
    #: Markdown; empty when the folder has none.
    description: str
    walkthrough: str = ""
    debrief: str = ""
    build: Script | None = None
    break_: Script | None = None
    boot: Script | None = None
    session: Script | None = None
    ready: Script | None = None
    checks: tuple[Check, ...]
    #: solve.sh, then solve.d/*: each is a way of its own.
    solutions: tuple[Script, ...] = ()
    #: wrong.d/*: plausible, and still refused.
    wrong: tuple[Script, ...] = ()
    hints: tuple[HintText, ...] = ()
    #: files/, copied to /puzzle/files of the build machine; None when there is none.
    files: Path | None = None

    @property
    def name(self) -> str:
        """Its slug, which is the folder's name."""
        return self.manifest.name

    @property
    def title(self) -> str:
        """What a learner sees first."""
        return self.manifest.title

    @property
    def base(self) -> str:
        """Name of the base image, without a digest."""
        return self.manifest.base.partition("@")[0]

    @property
    def base_digest(self) -> str | None:
        """`sha256:…` when the base is pinned."""
        return self.manifest.base.partition("@")[2] or None

    @property
    def solve(self) -> Script | None:
        """The reference solution."""
        return self.solutions[0] if self.solutions else None


def load(folder: Path) -> Puzzle:
    """Read and check a puzzle's folder; DefinitionError lists every problem."""
    raise NotImplementedError
