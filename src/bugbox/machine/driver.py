# SPDX-License-Identifier: Apache-2.0
"""What every VMM driver offers, and what a machine is to the rest of bugbox.

`tests/contract` has the suite that each driver must pass, the fake included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bugbox.host.proc import Process
from bugbox.machine.console import Console
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.machine.template import Capture, Snapshot

__all__ = ["Abilities", "Driver", "Machine", "Opening"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What a driver can do: data, not exceptions."""

    pause: bool
    clone: bool
    accelerated: bool
    #: Whether a running machine can be copied (`capture`, `restore`).
    fork: bool = False
    #: Whether it reads qcow2; else a drive is a raw file or a block device.
    qcow2: bool = True
    #: Whether its machines have a jail on this host, which is the session's to give back.
    jailed: bool = False


class Opening(Protocol):
    """A port of a guest that can be reached on this host, for as long as it is held open."""

    @property
    def address(self) -> tuple[str, int]:
        """Where on this host it is."""

    async def taken(self) -> bool | None:
        """Whether the guest took the connection; None: not known so far."""


class Machine(Protocol):
    """One machine that lives in a process of its own and outlives us."""

    spec: MachineSpec
    #: The VMM's process.
    process: Process
    #: What the guest prints on its serial port; it goes on across reboots.
    console: Console

    @property
    def state(self) -> State:
        """Where it is in its life."""

    @property
    def reason(self) -> str:
        """Why it is off, stalled or failed; empty otherwise."""

    @property
    def lifeline(self) -> Lifeline:
        """The agent in the guest. The same object across a guest's reboot and a reconnect."""

    def watch(self, callback: Callable[[State], None]) -> None:
        """Call `callback` with every new state, in the event loop."""

    def opening(self, port: int) -> AbstractAsyncContextManager[Opening]:
        """Open a way from this host to a TCP port of the guest, through its first network card.

        GuestError where it has none, or no way can be opened.
        """

    async def wait_lifeline(self) -> None:
        """Wait for the lifeline's hello of this boot; BootFailed or MachineLost."""

    async def reached(self, target: State) -> None:
        """The session says what only it can know: READY after a boot."""

    async def pause(self) -> None:
        """Stop the virtual CPUs."""

    async def resume(self) -> None:
        """Let them run on (also after STALLED)."""

    async def reset(self) -> None:
        """Boot it again on the same disk (from OFF, or when the guest no longer answers)."""

    async def save(self) -> bytes:
        """End it and return the state of its devices; its memory is in the file.

        Only for a machine booted with a memory file. Its process is gone and its disk whole.
        """

    async def suspend(self, sink: int) -> tuple[int, str]:
        """Write a paused machine with all its memory to `sink`; return how much, and its sha256.

        It stays paused: it may run on as if nothing had been, or be stopped and restored. OSError
        when `sink` takes no more.
        """

    async def capture(self, wanted: Capture) -> None:
        """Copy it while it runs; it stands still for a moment at the end.

        On failure it runs on, as it does when this is cancelled.
        """

    async def merge(self, drive: str, images: Sequence[Path]) -> None:
        """Move what the first of `images` hold into the last, which lies lowest; it runs on.

        They lie below the image that the drive writes to, and nobody else reads them.
        """

    async def stop(self, grace: float = 5.0) -> None:
        """End it: ask the guest, then the VMM, then kill. Its process is gone afterwards."""

    async def release(self) -> None:
        """Let go of its sockets without ending it: another process may adopt it."""


class Driver(Protocol):
    """One way of running machines."""

    name: str

    @property
    def abilities(self) -> Abilities:
        """What it can do on this host."""

    async def boot(
        self,
        spec: MachineSpec,
        started: Callable[[Process], None],
        *,
        ram: int | None = None,
    ) -> Machine:
        """Start the VMM and connect; `started` is called with its process before anything else.

        Returns in state BOOTING; the caller then awaits `wait_lifeline`. On failure the VMM is
        gone. With `ram`, a memory file's descriptor, that file is the guest's memory and the
        machine can be saved.
        """

    async def clone(
        self, spec: MachineSpec, snapshot: Snapshot, started: Callable[[Process], None]
    ) -> Machine:
        """Start a machine where another one was saved, its memory shared until it is written to.

        Everything else as `boot`: it runs, and its lifeline has still to be waited for.
        """

    async def restore(
        self, spec: MachineSpec, saved: int, started: Callable[[Process], None]
    ) -> Machine:
        """Start a VMM and load what `suspend` wrote from the file `saved`; it is PAUSED then.

        On failure the VMM is gone, and what was saved as good as before.
        """

    async def start_copy(
        self, spec: MachineSpec, state: int, started: Callable[[Process], None]
    ) -> Machine:
        """Start a machine where another one was captured, from the file `state`.

        Everything else as `boot`: it runs, and its lifeline has still to be waited for.
        """

    async def traits(self, spec: MachineSpec) -> dict[str, str]:
        """Tell all of the VMM and the host that shapes a saved machine, each by a name.

        Nothing in it belongs to one session.
        """

    async def adopt(self, spec: MachineSpec, process: Process) -> Machine:
        """Take over a machine whose keeper died; MachineLost when it is gone."""
