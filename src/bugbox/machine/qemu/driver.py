# SPDX-License-Identifier: Apache-2.0
"""The QEMU driver: boot a machine, or take over one whose keeper died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable

import anyio

from bugbox.config import Settings
from bugbox.errors import BootFailed, GuestError, HostError, MachineLost
from bugbox.events import notice, span
from bugbox.host.bridge import in_thread
from bugbox.host.proc import Process
from bugbox.machine.cmdline import kernel_args
from bugbox.machine.driver import Abilities, Machine
from bugbox.machine.qemu.cmdline import Platform
from bugbox.machine.qemu.launch import launch
from bugbox.machine.qemu.machine import QemuMachine
from bugbox.machine.qemu.migration import feed, filled_pipe
from bugbox.machine.qemu.probe import EMULATION, kvm_platform
from bugbox.machine.qemu.traits import traits
from bugbox.machine.qemu.tsc import host_tsc_khz
from bugbox.machine.sockets import log_tail
from bugbox.machine.spec import Kernel, MachineSpec
from bugbox.machine.state import State
from bugbox.machine.template import Snapshot
from bugbox.paths import Home

__all__ = ["QemuDriver"]

#: How long a look at the counter's rate is good, asleep or awake.
_TSC_SECONDS = 60.0


class QemuDriver:
    """Machines of QEMU's `microvm` type, under KVM where it works and emulated elsewhere."""

    name = "qemu"

    def __init__(self, home: Home, settings: Settings) -> None:
        self.home = home
        self.settings = settings
        self._platform: Platform | None = None
        #: The counter's rate, and when it was looked at: a look takes a hundredth of a second.
        self._measured: tuple[int | None, float] | None = None
        self._probing = asyncio.Lock()

    @property
    def abilities(self) -> Abilities:
        """What it can do on this host, as far as a boot has shown it."""
        fast = self._platform is not None and self._platform.accel == "kvm"
        return Abilities(pause=True, clone=True, fork=True, accelerated=fast)

    async def boot(
        self,
        spec: MachineSpec,
        started: Callable[[Process], None],
        *,
        ram: int | None = None,
    ) -> Machine:
        """Start QEMU and connect; on failure it is gone again."""
        return await self._run(spec, started, ram, None, QemuMachine.start)

    async def clone(
        self, spec: MachineSpec, snapshot: Snapshot, started: Callable[[Process], None]
    ) -> Machine:
        """Start QEMU where a machine was saved; on failure it is gone again."""
        state = await in_thread(filled_pipe, snapshot.state)

        async def load(machine: QemuMachine) -> None:
            await machine.load(state)

        try:
            return await self._run(spec, started, snapshot.ram, state, load)
        finally:
            os.close(state)

    async def restore(
        self, spec: MachineSpec, saved: int, started: Callable[[Process], None]
    ) -> Machine:
        """Start QEMU and load what a suspended machine wrote; it is paused then."""
        source, sink = await in_thread(os.pipe)
        pipe = contextlib.ExitStack()
        pipe.callback(os.close, source)
        feeding: list[asyncio.Task[None]] = []

        async def load(machine: QemuMachine) -> None:
            pipe.close()  # only QEMU reads it, so that the feeder is told when QEMU is gone
            feeding.append(asyncio.ensure_future(in_thread(feed, saved, sink)))
            await machine.restore(source)

        try:
            return await self._run(spec, started, None, source, load)
        finally:
            pipe.close()
            if not feeding:
                os.close(sink)
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*feeding)

    async def start_copy(
        self, spec: MachineSpec, state: int, started: Callable[[Process], None]
    ) -> Machine:
        """Start QEMU where a running machine was captured; on failure it is gone again."""

        async def load(machine: QemuMachine) -> None:
            await machine.load(state, whole=True)

        return await self._run(spec, started, None, state, load)

    async def traits(self, spec: MachineSpec) -> dict[str, str]:
        """Tell QEMU's build, its arguments without one session's own, and the host's CPU."""
        platform = await self.platform(spec.kernel)
        khz = await self._tsc_khz(platform)
        # What was measured differs a little each time; what matters is which CPU it is.
        append = kernel_args(spec, tsc_khz=khz and round(khz, -3), accel=platform.accel)
        return await in_thread(traits, spec, platform, self.settings.qemu, append)

    async def _tsc_khz(self, platform: Platform) -> int | None:
        if platform.accel != "tcg":
            return None
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._measured is None or now - self._measured[1] > _TSC_SECONDS:
            khz = await in_thread(host_tsc_khz, self.home.cache / "tsc.json")
            self._measured = (khz, now)
        return self._measured[0]

    async def _run(
        self,
        spec: MachineSpec,
        started: Callable[[Process], None],
        ram: int | None,
        state: int | None,
        begin: Callable[[QemuMachine], Awaitable[None]],
    ) -> Machine:
        platform = await self.platform(spec.kernel)
        khz = await self._tsc_khz(platform)
        append = kernel_args(spec, tsc_khz=khz, accel=platform.accel)
        taken: list[Process] = []

        def spawned(process: Process) -> None:
            taken.append(process)
            started(process)

        machine: QemuMachine | None = None
        try:
            with span("vmm: start"):
                await in_thread(
                    launch,
                    spec,
                    platform,
                    program=self.settings.qemu,
                    append=append,
                    started=spawned,
                    ram=ram,
                    state=state,
                )
            machine = self._machine(spec, taken[0], State.BOOTING)
            with span("vmm: monitor"):
                await machine.attach()
            with span("vmm: load" if state is not None else "vmm: go"):
                await begin(machine)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                died = await _take_back(machine, taken)
            if isinstance(error, GuestError) and died:
                raise _did_not_start(spec) from error
            raise
        return machine

    async def adopt(self, spec: MachineSpec, process: Process) -> Machine:
        """Take over a machine whose keeper died; MachineLost when it is gone or still held.

        READY: the boot that a session saw to its end is still the one that runs. REBOOTING: the
        guest has rebooted since, or its lifeline is silent so far.
        """
        if not process.alive:
            raise MachineLost(f"{spec.id}: its QEMU is gone")
        machine = self._machine(spec, process, State.READY)
        try:
            await machine.take_up(await machine.attach(), 3.0 * self.settings.timeout_factor)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await machine.release()
            raise
        return machine

    async def platform(self, kernel: Kernel) -> Platform:
        """Return what machines run on here: settled by the settings, or by a probe boot."""
        async with self._probing:
            if self._platform is None:
                self._platform = await self._find_platform(kernel)
            return self._platform

    async def _find_platform(self, kernel: Kernel) -> Platform:
        wanted = self.settings.accel
        if wanted == "tcg":
            return EMULATION
        kvm, probed = await in_thread(
            kvm_platform,
            self.home.cache / "kvm.json",
            self.settings.qemu,
            kernel.vmlinux,
            timeout=10.0 * self.settings.timeout_factor,
        )
        if kvm is not None:
            return kvm
        if wanted == "kvm":
            raise HostError("KVM does not work here", hint="accel = auto falls back to emulation")
        if probed:
            notice("KVM does not work here: machines are emulated, which is slower")
        return EMULATION

    def _machine(self, spec: MachineSpec, process: Process, state: State) -> QemuMachine:
        return QemuMachine(spec, process, factor=self.settings.timeout_factor, state=state)


async def _take_back(machine: QemuMachine | None, taken: list[Process]) -> bool:
    """Leave no process behind; True when QEMU had ended by itself."""
    if machine is not None:
        await machine.release()
    died = False
    for process in taken:
        died = await in_thread(process.wait_gone, 0.5)
        process.kill()
        await in_thread(process.wait_gone, 5.0)
    return died


def _did_not_start(spec: MachineSpec) -> BootFailed:
    said = log_tail(spec)
    last = said.splitlines()[-1] if said else "it said nothing"
    return BootFailed(f"QEMU did not start: {last}", detail=said)
