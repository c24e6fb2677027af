# SPDX-License-Identifier: Apache-2.0
"""What a saved machine is: its key, its manifest, and what a driver makes clones from. Pure.

A template is one immutable set: memory, device state, disk. Its *key* is the digest of everything
that shaped it, each ingredient by a name; two machines with the same key would have been the same
when they were saved. What an ingredient is, only those know who mixed it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["FORMAT", "Capture", "Manifest", "Part", "Snapshot", "key_of", "parse"]

#: Changes when an older template must not be used any more.
FORMAT = 2
#: What a template consists of: memory, device state, disk, and an empty disk over that one.
PARTS = ("ram", "state", "disk.qcow2", "clone.qcow2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine, opened: what a driver makes clones from."""

    #: Descriptor of its memory, in a file that nobody can write to any more.
    ram: int
    #: State of its devices.
    state: bytes


@dataclass(slots=True, kw_only=True)
class Capture:
    """A copy of a machine that runs on: what it takes, and what became of it.

    The copy is the file `state` and what the machine's drives held at that moment.
    """

    #: Descriptor of an empty file that takes its memory and the state of its devices.
    state: int
    #: By drive: an empty qcow2 over its topmost image. From the moment of the copy on the machine
    #: writes there, and the image below stays as it is.
    overlays: Mapping[str, Path]
    #: The machine writes to `overlays`. True after some failures as well.
    switched: bool = False
    #: How long the guest stood still.
    pause_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a template, as it was published."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a template says of itself."""

    key: str
    #: The puzzle's name, or the image's.
    name: str
    mem_mib: int
    #: Guest's wall clock minus the host's when it was saved, ns: a puzzle's clock may be wrong.
    clock_offset_ns: int
    #: The name that the puzzle gave it; empty: it had its session's, and a clone gets its own.
    hostname: str
    #: Kinds of SSH host keys it had made, such as "ed25519"; a clone gets its own.
    host_keys: tuple[str, ...]
    #: Id of a terminal with a shell of the learner's that waits, to answer in a clone and end.
    login: str
    #: Units that had failed, as the puzzle wants it.
    degraded: tuple[str, ...]
    #: Seconds since 1970, for people.
    made: float
    ingredients: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return what is written to the disk."""
        return json.dumps({"format": FORMAT} | dataclasses.asdict(self), indent=1) + "\n"


def parse(text: bytes | str) -> Manifest:
    """Read a manifest; ValueError when it is not one of ours, or incomplete."""
    raw: Any = json.loads(text)
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise ValueError(f"not a template of format {FORMAT}")
    try:
        parts = {name: Part(**each) for name, each in raw.pop("parts").items()}
        raw |= {name: tuple(raw[name]) for name in ("host_keys", "degraded")}
        manifest = Manifest(**raw, parts=parts)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a template's manifest: {error}") from error
    missing = [name for name in PARTS if name not in parts]
    if missing:
        raise ValueError(f"a template without {', '.join(missing)}")
    return manifest


def key_of(ingredients: Mapping[str, str]) -> str:
    """Return the key of what these ingredients make, whatever their order."""
    hasher = hashlib.sha256(f"bugbox template {FORMAT}".encode())
    for name in sorted(ingredients):
        for text in (name, ingredients[name]):
            data = text.encode()
            hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()[:32]
