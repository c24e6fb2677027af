# SPDX-License-Identifier: Apache-2.0
"""The Firecracker driver: boot a machine, or take over one whose keeper died."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from bugbox.config import Settings
from bugbox.errors import BootFailed, GuestError, MachineLost, StateError
from bugbox.events import notice, span
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.cmdline import kernel_args
from bugbox.machine.driver import Abilities, Machine
from bugbox.machine.firecracker.jail import Jail, JailLimits, Jails, jails_of
from bugbox.machine.firecracker.launch import last_words, launch
from bugbox.machine.firecracker.machine import FirecrackerMachine
from bugbox.machine.firecracker.probe import check_kvm, jailer_path, program_version
from bugbox.machine.firecracker.version import Version
from bugbox.machine.sockets import log_tail
from bugbox.machine.spec import MachineSpec
from bugbox.machine.state import State
from bugbox.machine.template import Snapshot
from bugbox.paths import Home

__all__ = ["FirecrackerDriver"]

#: What Firecracker itself may take of memory, with the page tables of its guest's and its pages of
#: the disk.
_VMM_MIB = 128
_LEAST_FILE = 1 << 20
_NO_COPIES = "a Firecracker machine cannot be saved or copied yet"


class FirecrackerDriver:
    """Machines of Firecracker's: small, quick, KVM only."""

    name = "firecracker"

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self._found: tuple[str, Version] | None = None
        self._told = False

    @property
    def abilities(self) -> Abilities:
        """What it can do."""
        jailed = self.settings.firecracker_jail != "off"
        return Abilities(
            pause=True, clone=False, fork=False, accelerated=True, qcow2=False, jailed=jailed
        )

    async def boot(
        self,
        spec: MachineSpec,
        started: Callable[[Process], None],
        *,
        ram: int | None = None,
    ) -> Machine:
        """Start the machine's warden and Firecracker, and connect; on failure both are gone."""
        if ram is not None:
            raise StateError(_NO_COPIES)
        program, version = await in_thread(self._program)
        append = kernel_args(spec, tsc_khz=None, accel="kvm", vmm="firecracker")
        taken: list[Process] = []

        def spawned(process: Process) -> None:
            taken.append(process)
            started(process)

        machine: FirecrackerMachine | None = None
        jail = await in_thread(self._jail, spec, program)
        try:
            with span("vmm: start"):
                await in_thread(
                    launch,
                    spec,
                    version,
                    program=program,
                    append=append,
                    started=spawned,
                    jail=jail,
                )
            machine = self._machine(spec, taken[0], State.BOOTING)
            await machine.attach()
            with span("vmm: go"):
                await machine.start()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await _take_back(machine, taken)
                if jail is not None:
                    await in_thread(jail.give_back)
            if isinstance(error, GuestError):
                raise _did_not_start(spec) from error
            raise
        return machine

    async def clone(
        self, spec: MachineSpec, snapshot: Snapshot, started: Callable[[Process], None]
    ) -> Machine:
        """Not yet."""
        raise StateError(_NO_COPIES)

    async def restore(
        self, spec: MachineSpec, saved: int, started: Callable[[Process], None]
    ) -> Machine:
        """Not yet."""
        raise StateError(_NO_COPIES)

    async def start_copy(
        self, spec: MachineSpec, state: int, started: Callable[[Process], None]
    ) -> Machine:
        """Not yet."""
        raise StateError(_NO_COPIES)

    async def traits(self, spec: MachineSpec) -> dict[str, str]:
        """Tell nothing: no machine is saved."""
        raise StateError(_NO_COPIES)

    async def adopt(self, spec: MachineSpec, process: Process) -> Machine:
        """Take over a machine whose keeper died; MachineLost when it is gone."""
        if not process.alive:
            raise MachineLost(f"{spec.id}: its Firecracker is gone")
        machine = self._machine(spec, process, State.READY)
        try:
            await machine.take_up(await machine.attach(), 3.0 * self.settings.timeout_factor)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await machine.release()
            raise
        return machine

    def _program(self) -> tuple[str, Version]:
        check_kvm()
        if self._found is None:
            self._found = program_version(self.settings.firecracker)
        return self._found

    def _jail(self, spec: MachineSpec, program: str) -> Jail | None:
        """Take the machine's jail. None: the settings say, in as many words, that it has none."""
        if self.settings.firecracker_jail == "off":
            if not self._told:
                self._told = True
                notice(
                    "Firecracker runs WITHOUT its jailer, with all rights of this user: a guest "
                    "that breaks out of it has them, too (firecracker_jail = off)"
                )
            return None
        jail = Jail(
            jails_of(self.home, self.settings),
            spec.root,
            jailer=Path(jailer_path(self.settings.jailer)),
            vmm=Path(program),
            limits=_limits(spec),
        )
        jail.take()
        return jail

    def _machine(self, spec: MachineSpec, process: Process, state: State) -> FirecrackerMachine:
        return FirecrackerMachine(
            spec,
            process,
            factor=self.settings.timeout_factor,
            state=state,
            end_rest=partial(_end_jailed, jails_of(self.home, self.settings), spec.root),
        )


def _end_jailed(jails: Jails, owner: Path) -> None:
    """Whatever the settings say now: what runs may have been started under others."""
    if os.geteuid() == 0:
        jails.end(owner)


async def _take_back(machine: FirecrackerMachine | None, taken: list[Process]) -> None:
    """Leave no process behind."""
    if machine is not None:
        await machine.release()
    for process in taken:
        await in_thread(process.wait_gone, 0.5)
        process.kill()
        await in_thread(process.wait_gone, 5.0)


def _did_not_start(spec: MachineSpec) -> BootFailed:
    return BootFailed(f"Firecracker did not start: {last_words(spec)}", detail=log_tail(spec))


def _limits(spec: MachineSpec) -> JailLimits:
    files = [each.path for each in spec.drives if not (each.device or each.read_only)]
    sizes = [path.stat().st_size for path in files if path.exists()]
    return JailLimits(
        memory_bytes=(spec.mem_mib + _VMM_MIB) << 20,
        cpus=float(spec.vcpus),
        # No file of its own can be larger than its largest disk.
        file_bytes=max([_LEAST_FILE, *sizes]),
    )
