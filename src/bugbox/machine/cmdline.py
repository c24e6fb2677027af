# SPDX-License-Identifier: Apache-2.0
"""The kernel's arguments, as one pure function; each with its reason."""

from __future__ import annotations

from typing import Literal

from bugbox.machine.spec import MachineSpec

__all__ = ["Accel", "Vmm", "kernel_args"]

Accel = Literal["kvm", "tcg"]
Vmm = Literal["qemu", "firecracker"]
#: The rate of QEMU's emulated local APIC timer (hw/intc/apic.c: nanoseconds, then divided).
_LAPIC_KHZ = 1_000_000


def kernel_args(
    spec: MachineSpec,
    *,
    tsc_khz: int | None,
    accel: Accel,
    vmm: Vmm = "qemu",
    init: str = "/sbin/init",
) -> str:
    """Return the kernel command line of a machine.

    `tsc_khz` is the measured rate of the host's counter, None where it is not known. The machine's
    own `extra_args` come last, and one of the same name replaces ours: `bugbox.init=none`.
    """
    replaced = {_key(arg) for arg in spec.kernel.extra_args}
    ours = [
        *(*_console(), *_faults(vmm), *_clock(tsc_khz, accel), *_timer(accel), *_speed()),
        *(*_rest(), *_translation(accel), *_devices(vmm), *_names(), *_root(init)),
    ]
    return " ".join([*(a for a in ours if _key(a) not in replaced), *spec.kernel.extra_args])


def _key(arg: str) -> str:
    return arg.split("=", 1)[0]


def _console() -> list[str]:
    return [
        # The serial port is what the host keeps and shows.
        "console=ttyS0",
        # Every character costs an exit from the guest; errors and panics are still printed.
        "quiet",
    ]


def _faults(vmm: Vmm) -> list[str]:
    return [
        # Reset by a triple fault: one instruction, needs neither ACPI nor a keyboard controller.
        # Firecracker takes that for a fault, and a word to its keyboard controller for a reboot.
        "reboot=t" if vmm == "qemu" else "reboot=k",
        # A panic reboots at once. The console has said why, and nobody could read a frozen screen.
        "panic=-1",
    ]


def _clock(tsc_khz: int | None, accel: Accel) -> list[str]:
    if accel == "kvm" or tsc_khz is None:
        return []  # KVM's own clock has its rate from the host.
    return [
        # Without it the kernel calibrates against a timer that a busy host ticks too late: 15 of
        # 100 boots then hang with no clock at all. The kernel takes the number as the truth.
        f"tsc_early_khz={tsc_khz}",
        # There is no better clock to check it against; a busy host would only look like drift.
        "tsc=reliable",
    ]


def _timer(accel: Accel) -> list[str]:
    if accel == "kvm":
        return []  # It has a timer that counts in the processor's own clock.
    # QEMU's local APIC counts nanoseconds. A kernel of our own takes our word for it (see
    # image/kernels/lapic.c) and does not wait 0.2 s to measure it; Debian's passes over it.
    return [f"bugbox.lapic_khz={_LAPIC_KHZ}"]


def _speed() -> list[str]:
    return [
        # The timer interrupt is known to work: saves ten ticks.
        "no_timer_check",
        # Keyboard controllers are probed with half-second time-outs. `dumbkbd` keeps the keys.
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        # Inside, the learner is root anyway: guarding the kernel from them would only cost. What
        # guards the host from the guest is the host's.
        "mitigations=off",
        # The CPU's random numbers may start the generator; systemd would wait for it otherwise.
        "random.trust_cpu=on",
        # Grace periods cost tens of milliseconds each while everything starts.
        "rcupdate.rcu_expedited=1",
    ]


def _translation(accel: Accel) -> list[str]:
    if accel == "kvm":
        return []
    # QEMU 7.2 keeps what it has translated by address: where programs and libraries lie at one
    # address in all processes, each is translated once and not in each process anew.
    return ["norandmaps"]


def _devices(vmm: Vmm) -> list[str]:
    if vmm == "qemu":
        return []
    return [
        # It has one serial port; each register of one that is not there is an exit of the guest.
        "8250.nr_uarts=1",
        # The lifeline's way to the host: no virtio-serial port, and modules that QEMU does without.
        "bugbox.lifeline=vsock",
    ]


def _rest() -> list[str]:
    # What wakes an idle machine for nothing (docs/decisions/0023).
    return [
        # A lockup of a guest is mostly a busy host, and nobody's to read.
        "nowatchdog",
        # Memory is looked through twice a second for something to compact; when an allocation
        # needs it, it is compacted all the same.
        "sysctl.vm.compaction_proactiveness=0",
    ]


def _names() -> list[str]:
    # The first card is eth0 on every driver.
    return ["net.ifnames=0"]


def _root(init: str) -> list[str]:
    """Tell the lifeline, which is the initramfs's /init, what to mount and what to start."""
    return [
        "bugbox.root=/dev/vda",
        "bugbox.rootfstype=ext4",
        # `none`: the root stays read-only and the lifeline stays PID 1 (the build machine).
        f"bugbox.init={init}",
    ]
