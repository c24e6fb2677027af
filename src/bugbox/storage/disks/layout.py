# SPDX-License-Identifier: Apache-2.0
"""What every way to make a session's disk has in common: what it gets, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["Layout", "Part", "Place", "Source", "Strategy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is shared, and never written again."""

    #: The base image, raw ext4.
    base: Path
    #: The puzzle's layer as a qcow2 over the base; None: the base alone.
    layer: Path | None = None
    #: The same layer in its portable form, puzzle.tar.zst.
    tar: Path | None = None
    #: How large the session's disk is to be; never less than what it lies over.
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session's own half lies."""

    #: Its folder.
    folder: Path
    #: What names of its block devices begin with: nobody else's do.
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A drive for the machine, in the order of /dev/vda, /dev/vdb, ..."""

    id: str
    path: Path
    format: Literal["raw", "qcow2"]
    read_only: bool = False
    #: The path is a block device's.
    device: bool = False
    backing: Part | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a machine is given: drives, and what its kernel must be told of them."""

    parts: tuple[Part, ...]
    kernel_args: tuple[str, ...] = ()


class Strategy(Protocol):
    """One way. `layout` touches nothing, so it can be written down before `make`."""

    name: str
    #: Whether every drive is a raw file or a block device, as Firecracker wants them.
    raw: bool

    def require(self, folder: Path) -> None:
        """Raise HostError, with what to do, when this host cannot do it in `folder`."""

    def layout(self, source: Source, place: Place) -> Layout:
        """Say what the machine will be given."""

    def make(self, source: Source, place: Place) -> None:
        """Make the session's half anew; what an earlier one left there goes."""

    def bring_back(self, place: Place) -> None:
        """Have the devices again, over what was written, after the host was restarted."""

    def give_back(self, place: Place) -> None:
        """Let go of what the end of the session's folder does not take along. May be repeated."""
