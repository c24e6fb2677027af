# SPDX-License-Identifier: Apache-2.0
"""A kernel profile says why each option is as it is; a build that differs from it is refused."""

import pytest

from bugbox.errors import HostError, NotFound
from bugbox.image import kconfig, kernel_build

TEXTS = {
    "a": '# head\n\nEXT4_FS y # the root\nMODULES n   # none\nNAME "x y" # a text\nHZ 100 # n\n',
    "b": "include a\n\nEXT4_FS n # other\nXFS_FS y # another root\n",
}  # fmt: skip


def parsed(name: str) -> dict[str, str]:
    return {o.name: o.value for o in kconfig.parse_profile(name, TEXTS.__getitem__)}


def test_a_profile():
    assert parsed("a") == {"EXT4_FS": "y", "MODULES": "n", "NAME": '"x y"', "HZ": "100"}
    assert parsed("b") == {**parsed("a"), "EXT4_FS": "n", "XFS_FS": "y"}


@pytest.mark.parametrize(
    "line",
    ["EXT4_FS y", "EXT4_FS y #", "EXT4_FS m # a module", "EXT4_FS", "A y # b\nA y # c", "x y # z",
     "A y # b\ninclude a"],
)  # fmt: skip
def test_a_line_that_is_wrong_is_named(line):
    with pytest.raises(HostError, match="p:"):
        kconfig.parse_profile("p", {"p": line, **TEXTS}.__getitem__)


def test_the_fragment_and_what_became_of_it():
    options = kconfig.parse_profile("a", TEXTS.__getitem__)
    text = kconfig.fragment(options)
    assert "CONFIG_EXT4_FS=y\n" in text
    assert "# CONFIG_MODULES is not set\n" in text
    config = kconfig.parse_config(text + "# CONFIG_OTHER is not set\nCONFIG_MORE=y\n")
    assert kconfig.differences(options, config) == []
    del config["EXT4_FS"]
    config["MODULES"] = "y"
    told = kconfig.differences(options, config)
    assert len(told) == 2
    assert "EXT4_FS was to be y (the root) and is n" in told


@pytest.mark.parametrize("profile", kernel_build.PROFILES)
def test_our_profiles(profile):
    options = {o.name: o for o in kernel_build.options(profile)}
    # What the lifeline, the drivers and the puzzles cannot do without.
    wanted = """BLK_DEV_INITRD PVH VIRTIO_MMIO VIRTIO_MMIO_CMDLINE_DEVICES VIRTIO_BLK VIRTIO_NET
        VIRTIO_CONSOLE HW_RANDOM_VIRTIO VSOCKETS EXT4_FS OVERLAY_FS SQUASHFS EROFS_FS BLK_DEV_DM
        BLK_DEV_LOOP NF_TABLES NET_NS USER_NS PID_NS CGROUPS MEMCG BPF_SYSCALL FTRACE KPROBES
        PERF_EVENTS IPV6 UNIX98_PTYS DEVTMPFS SERIAL_8250_CONSOLE CGROUP_PIDS TUN SECCOMP"""
    for name in wanted.split():
        assert options[name].value == "y", name
    for name in ("SERIO", "VT", "USB_SUPPORT", "SPECULATION_MITIGATIONS"):
        assert options[name].value == "n", name
    assert all(len(o.reason) > 1 for o in options.values())
    assert profile in options["LOCALVERSION"].value


def test_the_debug_profile_is_the_fast_one_and_more():
    fast = {o.name: o.value for o in kernel_build.options("fast")}
    debug = {o.name: o.value for o in kernel_build.options("debug")}
    assert fast.keys() < debug.keys()
    changed = {name for name in fast if fast[name] != debug[name]}
    assert changed <= {"LOCALVERSION", "DYNAMIC_DEBUG", "SCHED_DEBUG"}


def test_there_is_no_other_profile():
    with pytest.raises(NotFound, match="slow"):
        kernel_build.options("slow")
