# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, sorted by whose turn it is.

    BugboxError
     ├── UserError             the person who typed the command or wrote the file   (exit 2)
     │    ├── DefinitionError      a puzzle's files are wrong (file, line, column, key)
     │    └── NotFound             no such puzzle, image or session
     ├── HostError             the operator of this host                           (exit 3)
     │    ├── MissingTool          a program we need is not installed
     │    ├── MissingPrivilege     a capability or device node is out of reach
     │    └── OutOfResources       no disk, memory or device left
     ├── CommandFailed         an external program said no                         (exit 1)
     ├── BuildFailed           a puzzle's build.sh or an image's recipe failed     (exit 1)
     ├── GuestError            the virtual machine misbehaved                      (exit 1)
     │    ├── BootFailed           it never became ready (last console lines attached)
     │    └── MachineLost          the VMM died or its socket went away
     ├── NotBuilt              an image or layer that must exist first does not    (exit 1)
     └── StateError            an operation arrived in the wrong state             (exit 1)

A message says what happened and where; `hint` says what to do about it. Kernel refusals stay
OSError until a layer can say something better.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

__all__ = [
    "BootFailed",
    "BugboxError",
    "BuildFailed",
    "CommandFailed",
    "DefinitionError",
    "GuestError",
    "HostError",
    "MachineLost",
    "MissingPrivilege",
    "MissingTool",
    "NotBuilt",
    "NotFound",
    "OutOfResources",
    "StateError",
    "UserError",
    "by_kind",
    "of_the_host",
]

#: Refusals of the kernel that the operator of this host can put right.
_HOST = {
    errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE,
    errno.ENFILE, errno.ENOMEM, errno.ENAMETOOLONG,
}  # fmt: skip


class BugboxError(Exception):
    """Base of every error bugbox raises on purpose."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        #: Longer evidence: a tool's output, the last console lines.
        self.detail = detail

    @property
    def kind(self) -> str:
        """The class's name: how an error is told apart on the keeper's socket and in JSON."""
        return type(self).__name__


class UserError(BugboxError):
    """The person who typed the command or wrote the file can put this right."""

    exit_status = 2


class DefinitionError(UserError):
    """A puzzle's files are wrong."""


class NotFound(UserError):
    """No such puzzle, image or session."""


class HostError(BugboxError):
    """The operator of this host can put this right."""

    exit_status = 3


class MissingTool(HostError):
    """A program we need is not installed."""


class MissingPrivilege(HostError):
    """A capability or device node is out of reach."""


class OutOfResources(HostError):
    """No disk space, memory or device left."""


class CommandFailed(BugboxError):
    """An external program ended with a status that means failure, or ran out of time."""

    def __init__(
        self,
        argv: Sequence[str],
        status: int | None,
        stderr: str = "",
        *,
        hint: str | None = None,
    ) -> None:
        last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
        how = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(
            f"{argv[0]} {how}" + (f": {last.strip()}" if last else ""), hint=hint, detail=stderr
        )
        self.argv = list(argv)
        self.status = status
        self.stderr = stderr


class BuildFailed(BugboxError):
    """A build script or an image recipe failed; `detail` has its output."""


class GuestError(BugboxError):
    """The virtual machine misbehaved."""


class BootFailed(GuestError):
    """The machine never became ready; `detail` has the last console lines."""


class MachineLost(GuestError):
    """The VMM died or its socket went away."""


class NotBuilt(BugboxError):
    """An image or a layer that must exist first does not; the message names it."""


class StateError(BugboxError):
    """An operation arrived in the wrong state."""


def of_the_host(error: OSError) -> HostError | None:
    """Return what the kernel's refusal means when the host's operator can end it, or None."""
    if error.errno not in _HOST:
        return None
    where = f"{error.filename}: " if error.filename else ""
    return HostError(f"{where}{error.strerror}")


def by_kind(kind: str) -> type[BugboxError]:
    """Return the class named `kind`, or BugboxError: errors cross the keeper's socket by name."""
    found = globals().get(kind)
    if isinstance(found, type) and issubclass(found, BugboxError) and found is not CommandFailed:
        return found
    return BugboxError
