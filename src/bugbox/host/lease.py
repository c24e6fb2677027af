# SPDX-License-Identifier: Apache-2.0
"""Numbers of this host that only one session may have at a time: subnets, user ids.

A lease belongs to a *folder*, the session's. It is written down before what it stands for is taken,
and while the folder is there nobody else gets the number: machines outlive the process that made
them, so a lock could not say so. When the folder is gone, so is the lease's right; whoever finds
it takes back what it stood for, and then ends it.

One JSON file a kind, replaced as a whole, under one lock for as long as it takes to change it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bugbox.errors import HostError, OutOfResources

__all__ = ["Book", "Lease", "Leases", "tag"]


def tag(owner: Path) -> str:
    """Return ten hex digits that stand for `owner` in names that the kernel keeps short."""
    return hashlib.sha256(os.fsencode(owner)).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class Lease:
    """A number, whose it is, and what must be known to take back what it stands for."""

    number: int
    owner: Path
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        """Whether its owner is gone."""
        return not self.owner.is_dir()


class Book:
    """The leases of one kind, while they are locked."""

    def __init__(self, leases: dict[int, Lease]) -> None:
        self._leases = leases
        self.changed = False

    def all(self) -> list[Lease]:
        """Every lease, by number."""
        return [self._leases[number] for number in sorted(self._leases)]

    def of(self, owner: Path) -> Lease | None:
        """The lease that `owner` has."""
        return next((lease for lease in self._leases.values() if lease.owner == owner), None)

    def take(self, owner: Path, size: int, facts: Mapping[str, Any]) -> Lease | None:
        """Give `owner` a number below `size`, or the one it has; None: all are taken."""
        had = self.of(owner)
        # Where to begin to look is the owner's own, so that a number that was just given back is
        # not the next one to be used.
        start = int(tag(owner), 16)
        free = ((start + step) % size for step in range(size))
        number = had.number if had else next((n for n in free if n not in self._leases), None)
        if number is None:
            return None
        self._leases[number] = Lease(number, owner, facts)
        self.changed = True
        return self._leases[number]

    def end(self, owner: Path) -> None:
        """End the lease that `owner` has, if any."""
        lease = self.of(owner)
        if lease is not None:
            del self._leases[lease.number]
            self.changed = True


class Leases:
    """A kind of number and the file that says who has which."""

    def __init__(self, folder: Path, kind: str, size: int) -> None:
        self.kind = kind
        self.size = size
        self._file = folder / f"{kind}.json"
        self._lock = folder / f"{kind}.lock"

    @contextmanager
    def locked(self) -> Iterator[Book]:
        """Have the book alone; what was changed in it is on disk when the block ends well."""
        self._file.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            book = Book(self._read())
            yield book
            if book.changed:
                self.write(book)
        finally:
            os.close(lock)

    def write(self, book: Book) -> None:
        """Write a locked book down now, before what was leased in it is taken."""
        rows = [
            {"number": each.number, "owner": str(each.owner), "facts": dict(each.facts)}
            for each in book.all()
        ]
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(rows, indent=1))
        new.rename(self._file)
        book.changed = False

    def take(self, owner: Path, *, hint: str, facts: Mapping[str, Any] | None = None) -> Lease:
        """Lease a number, or find the one that `owner` has. OutOfResources when all are taken."""
        with self.locked() as book:
            lease = book.take(owner, self.size, facts or {})
            if lease is None:
                raise self.full(hint)
            return lease

    def full(self, hint: str) -> OutOfResources:
        """Return the error for when every number is taken."""
        return OutOfResources(f"all {self.size} {self.kind} of bugbox are in use", hint=hint)

    def end(self, owner: Path) -> None:
        """End the lease that `owner` has, if any."""
        with self.locked() as book:
            book.end(owner)

    def _read(self) -> dict[int, Lease]:
        try:
            rows = json.loads(self._file.read_bytes())
            leases = [Lease(int(r["number"]), Path(r["owner"]), dict(r["facts"])) for r in rows]
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            raise HostError(
                f"{self._file}: cannot be read: {error}",
                hint="remove it when no machine runs, then run bugbox gc",
            ) from error
        return {lease.number: lease for lease in leases}
