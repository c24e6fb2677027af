# SPDX-License-Identifier: Apache-2.0
"""What a session holds, on disk, before it is taken.

`record.json` is replaced as a whole and synced, so a reader sees the old one or the new one,
never a half. Whoever holds a session's machine holds the lock beside it; the kernel drops the lock
when that process dies, however it dies. So anybody may tell three cases apart:

    locked                    somebody keeps this machine: leave it alone
    not locked, handed over   its keeper died: adopt it
    not locked, otherwise     somebody died while making or ending it: the reaper gives all back
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from bugbox.errors import NotFound, StateError
from bugbox.host.proc import Process
from bugbox.paths import Home, SessionPaths

__all__ = [
    "FORMAT",
    "Ledger",
    "Phase",
    "Record",
    "abandoned",
    "claim",
    "host_boot_id",
    "ids",
    "load",
    "load_all",
    "take_over",
    "unkept",
    "written",
]

#: Changes when an older record can no longer be understood.
FORMAT = 1
#: Without i, l, o, 0 and 1, which look alike on a screen.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
#: A socket's path has 107 bytes at most, and the name is part of it.
_NAME_LIMIT = 40


class Phase(StrEnum):
    """Who is responsible for a session's things when nobody has it locked."""

    #: Being made; never seen by a learner. The reaper takes it back.
    MAKING = "making"
    #: Handed over; there may be work in it. Only its owner ends it.
    HANDED_OVER = "handed over"
    #: Its owner said stop. The reaper finishes that.
    ENDING = "ending"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything that must survive the process that made the session."""

    id: str
    format: int = FORMAT
    phase: Phase = Phase.MAKING
    #: The puzzle's name, or the image's for a bare machine.
    puzzle: str
    #: The puzzle's folder; empty for a bare machine.
    folder: str = ""
    title: str = ""
    user: str = "learner"
    driver: str = "qemu"
    disk: str = "qcow2"
    #: The release of the kernel that was asked for; empty: the default.
    kernel: str = ""
    #: The machine's description, as `spec_to_json` writes it; empty until it is known.
    spec: dict[str, Any] = field(default_factory=dict)
    #: The template whose disk the session's own lies over; empty for one that was booted.
    template: str = ""
    #: A bare machine's layer, by its key in the store.
    layer: str = ""
    #: The values of the puzzle's variants, by name.
    variants: dict[str, str] = field(default_factory=dict)
    #: What was taken, in order: "sockets", "disk", "vmm". Given back in the opposite order.
    holds: tuple[str, ...] = ()
    #: The VMM: pid, start time in ticks, and the host's boot id, without which a pid means nothing.
    pid: int = 0
    pid_started: int = 0
    host_boot: str = ""
    #: Last state of the machine that we know of (machine.state), and why.
    state: str = "created"
    reason: str = ""
    #: Guest's wall clock minus the host's when it was paused last, ns; None: it did not say.
    clock_offset_ns: int | None = None
    #: What lies in the saved machine's file: size, sha256, and whose it is; empty: nothing does.
    saved: dict[str, Any] = field(default_factory=dict)
    #: Somebody waits for it: not a standby, nor a machine that a template is made of.
    asked: bool = False
    #: Wall clock, seconds since 1970, for people.
    started: float = 0.0
    timings_ms: dict[str, int] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()
    boots: int = 0
    #: The machine is new and was not ready yet: break.sh still has to run, or to run again.
    fresh: bool = True
    #: The guest's own boot id, as its lifeline told it: tells whether it rebooted unseen.
    guest_boot: str = ""
    checks_run: int = 0
    checks_failed: int = 0
    hints: tuple[int, ...] = ()
    gave_up: bool = False
    #: Seconds from `started` to the first check that passed; 0 while unsolved.
    solved_after: float = 0.0
    #: Until when its time was extended, seconds since 1970; 0: it was not.
    until: float = 0.0
    #: Checks that have passed since the machine was made, where a puzzle counts each pass.
    passed: tuple[str, ...] = ()
    #: What the solution was worth; None where there is nothing to have.
    points: int | None = None

    @property
    def process(self) -> Process | None:
        """The VMM's process; None when there never was one or the host has booted since."""
        if not self.pid or self.host_boot != host_boot_id():
            return None
        return Process(pid=self.pid, started=self.pid_started)


#: Fields to change; None leaves all as it is.
Change = Callable[[Record], Mapping[str, Any] | None]


class Ledger:
    """A session's record together with its lock: the only way to change one."""

    def __init__(self, paths: SessionPaths, record: Record, lock: int) -> None:
        self.paths = paths
        self._record = record
        self._lock = lock
        self._writing = threading.Lock()

    @property
    def record(self) -> Record:
        """What was last written."""
        return self._record

    def write(self, *, sync: bool = True, **changes: Any) -> Record:
        """Change fields; on disk when this returns. From any thread. StateError once closed.

        Without `sync` it outlives us, not the host: enough for what dies with the host anyway.
        """
        return self.update(lambda _: changes, sync=sync)

    def update(self, change: Change, *, sync: bool = True) -> Record:
        """Change what `change` returns of the record as it is, while nobody else writes."""
        with self._writing:
            if self._lock < 0:
                raise StateError(f"{self._record.id} is not ours any more")
            changes = change(self._record)
            if changes is None:
                return self._record
            record = dataclasses.replace(self._record, **changes)
            text = json.dumps(dataclasses.asdict(record), indent=1)
            _replace(self.paths.record, text.encode(), sync=sync)
            self._record = record
        return record

    def hold(self, what: str) -> None:
        """Write down that `what` is about to be taken."""
        if what not in self._record.holds:
            self.write(holds=(*self._record.holds, what))

    def process_started(self, process: Process) -> None:
        """Write down the VMM: called by the driver before it does anything else with it."""
        self.write(pid=process.pid, pid_started=process.started, host_boot=host_boot_id())

    def close(self) -> None:
        """Let go of the lock, once a write under way has ended; the session stays as it is."""
        with self._writing:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def claim(home: Home, name: str, **fields: Any) -> Ledger:
    """Make a session's folder under a fresh id, locked, with a record in it."""
    home.prepare()
    while True:
        suffix = "".join(secrets.choice(_ALPHABET) for _ in range(4))
        paths = home.session(f"{name[:_NAME_LIMIT]}-{suffix}")
        try:
            paths.root.mkdir(mode=0o700)
        except FileExistsError:
            continue
        lock = _try_lock(paths)
        if lock is None:  # the reaper came between the two and removed the empty folder
            continue
        record = Record(id=paths.root.name, puzzle=name, host_boot=host_boot_id(), **fields)
        ledger = Ledger(paths, record, lock)
        try:
            ledger.write()
        except BaseException:  # no room, for one: what is there is as good as nothing
            shutil.rmtree(paths.root, ignore_errors=True)
            ledger.close()
            raise
        return ledger


def load(home: Home, id: str) -> Record:
    """Read a session's record without its lock; NotFound when there is none."""
    try:
        raw = json.loads(home.session(id).record.read_bytes())
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        known = {each.name for each in dataclasses.fields(Record)}
        raw = {key: value for key, value in raw.items() if key in known}
        for key in ("holds", "degraded", "hints", "passed"):
            raw[key] = tuple(raw.get(key, ()))
        return Record(**{**raw, "phase": Phase(raw["phase"])})
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no session {id}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise StateError(f"{home.session(id).record}: cannot be read: {error}") from error


def load_all(home: Home) -> Iterator[Record]:
    """Read the records of all sessions, oldest first; skip what cannot be read."""
    found = []
    for id in ids(home):
        try:
            found.append(load(home, id))
        except (NotFound, StateError):
            continue
    yield from sorted(found, key=lambda record: record.started)


def ids(home: Home) -> list[str]:
    """Names of all session folders."""
    try:
        return sorted(entry.name for entry in home.sessions.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def take_over(home: Home, id: str) -> Ledger | None:
    """Lock a session whose keeper is gone; None when somebody keeps it. NotFound, StateError."""
    paths = home.session(id)
    lock = _try_lock(paths)
    if lock is None:
        return None
    try:
        return Ledger(paths, load(home, id), lock)
    except BaseException:
        os.close(lock)
        raise


@contextmanager
def abandoned(home: Home, id: str) -> Iterator[bool]:
    """Hold the lock of a session's folder, record or not; False when somebody else has it."""
    lock = _try_lock(home.session(id))
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def unkept(home: Home, id: str) -> bool:
    """Whether nobody has the lock of a session's folder."""
    with abandoned(home, id) as free:
        return free


def written(home: Home, id: str) -> int:
    """When a session's record was written, ns; 0 when there is none."""
    try:
        return home.session(id).record.stat().st_mtime_ns
    except OSError:
        return 0


def host_boot_id() -> str:
    """This boot of the host: a pid of another boot names nobody."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _try_lock(paths: SessionPaths) -> int | None:
    """Lock the folder's lock file; None when it is taken, or the folder was removed meanwhile."""
    try:
        fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(paths.lock).st_ino == os.fstat(fd).st_ino:  # noqa: PTH116 (beside fstat)
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _replace(path: Path, data: bytes, *, sync: bool) -> None:
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    new.rename(path)
    if not sync:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
