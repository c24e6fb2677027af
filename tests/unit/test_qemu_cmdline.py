# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line: the golden one, and what may change in it."""

import dataclasses
import json
from pathlib import Path

import pytest

from bugbox.machine.qemu.cmdline import Descriptors, Platform, arguments, drive_nodes
from bugbox.machine.spec import Drive, Kernel, MachineSpec, Nic

BASE = Drive(id="base", path=Path("/img/base.ext4"), format="raw", read_only=True)
LAYER = Drive(
    id="layer", path=Path("/layers/p.qcow2"), format="qcow2", read_only=True, backing=BASE
)
ROOT = Drive(id="root", path=Path("/s/disk.qcow2"), format="qcow2", backing=LAYER)
SPEC = MachineSpec(
    id="read-me-3f9k",
    kernel=Kernel(vmlinux=Path("/k/vmlinux"), initrd=Path("/k/initrd"), release="6.1"),
    drives=(ROOT,),
    root=Path("/s"),
    runtime=Path("/run/s"),
)
EMULATED = Platform(accel="tcg", cpu="max,+arat")
FILES = Descriptors(
    kernel=3,
    initrd=4,
    qmp=5,
    console=6,
    lifeline=7,
    drives={"root": 8, "root.1": 9, "root.2": 10},
)

GOLDEN = r"""
-name guest=read-me-3f9k,debug-threads=on
-no-user-config
-nodefaults
-display none
-msg timestamp=on
-S
-action reboot=reset,shutdown=pause
-machine microvm,acpi=on,pcie=off,rtc=on,pit=on,pic=on,isa-serial=on,auto-kernel-cmdline=off,x-option-roms=off,memory-backend=ram,dump-guest-core=off
-accel tcg,thread=multi,tb-size=64
-cpu max,+arat
-smp 1
-m 256M
-rtc base=utc,clock=host
-global virtio-mmio.force-legacy=off
-device virtio-rng-device
-object memory-backend-memfd,id=ram,size=256M,share=on
-kernel /proc/self/fd/3
-initrd /proc/self/fd/4
-append console=ttyS0
-chardev socket,id=qmp,fd=5,server=on,wait=off
-mon chardev=qmp,mode=control
-chardev socket,id=console,fd=6,server=on,wait=off
-serial chardev:console
-chardev socket,id=lifeline,fd=7,server=on,wait=off
-device virtio-serial-device,max_ports=2
-device virtserialport,id=lifeline,chardev=lifeline,name=bugbox.lifeline.0
-add-fd fd=10,set=10
-blockdev {"driver":"file","node-name":"root.2-file","filename":"/dev/fdset/10","read-only":true,"discard":"unmap","locking":"off"}
-blockdev {"driver":"raw","node-name":"root.2","file":"root.2-file","read-only":true,"discard":"unmap"}
-add-fd fd=9,set=9
-blockdev {"driver":"file","node-name":"root.1-file","filename":"/dev/fdset/9","read-only":true,"discard":"unmap","locking":"off"}
-blockdev {"driver":"qcow2","node-name":"root.1","file":"root.1-file","read-only":true,"discard":"unmap","backing":"root.2"}
-add-fd fd=8,set=8
-blockdev {"driver":"file","node-name":"root-file","filename":"/dev/fdset/8","read-only":false,"discard":"unmap"}
-blockdev {"driver":"qcow2","node-name":"root","file":"root-file","read-only":false,"discard":"unmap","backing":"root.1"}
-device virtio-blk-device,drive=root,id=disk-root,werror=stop
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
"""  # noqa: E501


def lines(argv: list[str]) -> list[str]:
    """Put each option with its value on one line."""
    out: list[str] = []
    for arg in argv:
        if arg.startswith("-"):
            out.append(arg)
        else:
            out[-1] += f" {arg}"
    return out


def made(spec: MachineSpec = SPEC, platform: Platform = EMULATED) -> list[str]:
    return lines(arguments(spec, platform, FILES, "console=ttyS0"))


def value(option: str, found: list[str]) -> str:
    return next(line.split(" ", 1)[1] for line in found if line.startswith(f"-{option} "))


def test_golden() -> None:
    assert made() == GOLDEN.strip().splitlines()


def test_a_machine_to_be_saved_and_its_clone_differ_in_one_option_and_the_last() -> None:
    saver = lines(arguments(SPEC, EMULATED, dataclasses.replace(FILES, ram=11), "console=ttyS0"))
    clone = lines(
        arguments(SPEC, EMULATED, dataclasses.replace(FILES, ram=11, state=12), "console=ttyS0")
    )
    ram = "-object memory-backend-file,id=ram,size=256M,mem-path=/proc/self/fd/11,share="
    assert [line for line in saver if line not in made()] == [f"{ram}on"]
    assert [line for line in clone if line not in made()] == [f"{ram}off", "-incoming defer"]
    assert len(clone) == len(made()) + 1


def test_no_path_of_the_host_is_in_it() -> None:
    text = " ".join(made())
    for part in ("/img", "/layers", "/s/", "/k/", "/run/"):
        assert part not in text


def test_kvm_needs_no_old_timers() -> None:
    found = made(platform=Platform(accel="kvm", cpu="host"))
    assert value("accel", found) == "kvm"
    assert value("cpu", found) == "host"
    assert "pit=off,pic=off" in value("machine", found)


def test_a_kernel_that_is_told_the_rate_needs_no_pit() -> None:
    told = lines(arguments(SPEC, EMULATED, FILES, "quiet tsc_early_khz=2596120"))
    assert "pit=off,pic=on" in value("machine", told)
    assert "pit=on,pic=on" in value("machine", made())


@pytest.mark.parametrize("vcpus", [1, 2])
def test_every_cpu_has_a_thread(vcpus: int) -> None:
    found = made(dataclasses.replace(SPEC, vcpus=vcpus))
    assert value("smp", found) == str(vcpus)
    assert "thread=multi" in value("accel", found)


@pytest.mark.parametrize(("restrict", "word"), [(True, "restrict=on"), (False, "restrict=off")])
def test_network_card(restrict: bool, word: str) -> None:
    nic = Nic(id="net0", mac="52:54:00:12:34:56", restrict=restrict)
    found = made(dataclasses.replace(SPEC, nics=(nic,)))
    assert f"-netdev user,id=net0,{word},ipv6=off" in found
    assert "-device virtio-net-device,netdev=net0,mac=52:54:00:12:34:56" in found


def test_without_a_card_there_is_no_network() -> None:
    assert not any("net" in line for line in made() if not line.startswith("-sandbox"))


def test_two_drives_over_one_base_are_two_chains() -> None:
    other = Drive(id="extra", path=Path("/s/extra.qcow2"), format="qcow2", backing=BASE)
    names = [name for drive in (ROOT, other) for name, _ in drive_nodes(drive)]
    assert names == ["root", "root.1", "root.2", "extra", "extra.1"]
    files = dataclasses.replace(FILES, drives={n: 20 + i for i, n in enumerate(names)})
    argv = arguments(dataclasses.replace(SPEC, drives=(ROOT, other)), EMULATED, files, "")
    nodes = [json.loads(arg)["node-name"] for arg in argv if arg.startswith("{")]
    assert len(nodes) == len(set(nodes)) == 10
    disks = [arg for arg in argv if arg.startswith("virtio-blk-device")]
    assert [d.split(",")[1] for d in disks] == ["drive=root", "drive=extra"]


def test_an_empty_qcow2_lies_over_nothing_whatever_its_header_says() -> None:
    alone = dataclasses.replace(ROOT, backing=None)
    argv = arguments(dataclasses.replace(SPEC, drives=(alone,)), EMULATED, FILES, "")
    over = [json.loads(a) for a in argv if a.startswith("{") and "qcow2" in a]
    assert over[0]["backing"] is None
