# SPDX-License-Identifier: Apache-2.0
"""Building a kernel of our own, from a tiny source: once, by content, and never a wrong one."""

import json
import os
import struct
from pathlib import Path

import pytest

from bugbox.config import Settings
from bugbox.errors import BuildFailed, HostError, MissingTool, NotFound
from bugbox.image import kernel, kernel_build, store
from bugbox.image import kernel_build as module
from bugbox.paths import Home
from tests.unit.test_image_vmlinux import elf, note

# What the real build does, as far as we see it: take the configuration, leave a few files.
MAKEFILE = """\
allnoconfig:
	cp $(KCONFIG_ALLCONFIG) $(O)/.config
	@[ -z "$(BREAK)" ] || sed -i 's/CONFIG_EXT4_FS=y//' $(O)/.config
vmlinux:
	@echo x >>counted
	mkdir -p $(O)/include/config
	echo 6.1.9-bugbox-fast >$(O)/include/config/kernel.release
	cp kernel.elf $(O)/vmlinux
	echo "0000 T start_kernel ($$KBUILD_BUILD_USER $$KBUILD_BUILD_HOST)" >$(O)/System.map
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A home, and a source of one file in place of Debian's."""
    source = tmp_path / "source"
    (source / "arch/x86/kernel/apic").mkdir(parents=True)
    (source / "arch/x86/kernel/apic/Makefile").write_text("obj-y += apic.o")
    (source / "Makefile").write_text(MAKEFILE)
    (source / "kernel.elf").write_bytes(elf(note(18, struct.pack("<I", 0x1000000))))
    unpacked = tmp_path / "unpacked/usr/bin"

    def unpack(packages, work):
        unpacked.mkdir(parents=True, exist_ok=True)
        (unpacked / "busybox").write_text("busybox")
        return source, tmp_path / "unpacked"

    monkeypatch.setattr(module.debian, "fetch", lambda names, **_: [Path(n) for n in names])
    monkeypatch.setattr(module, "identity", lambda path: f"{path}=1")
    monkeypatch.setattr(module, "_unpack", unpack)
    monkeypatch.setattr(module, "_check_tools", lambda: None)
    monkeypatch.setattr(module, "_strip", lambda path: None)
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    home = Home()
    home.prepare()
    return home, source


def test_a_kernel_is_built_once_and_then_found(tiny):
    home, source = tiny
    first = store.ensure_own_kernel(home, Settings(), "fast")
    assert first.release == "6.1.9-bugbox-fast"
    assert first.profile == "fast"
    assert store.ensure_own_kernel(home, Settings(), "fast").digest == first.digest
    assert (source / "counted").read_text() == "x\n"
    for name in ("vmlinux", "busybox", "modules", "config", "System.map", "manifest.json"):
        assert (first.folder / name).exists(), name
    # No name of a person or a host goes into a build.
    assert "(bugbox bugbox)" in (first.folder / "System.map").read_text()
    assert json.loads((first.folder / "manifest.json").read_text())["options"] > 250


def test_ours_is_booted_only_when_it_is_named(tiny):
    home, _ = tiny
    own = store.ensure_own_kernel(home, Settings(), "fast")
    assert store.find_kernel(home) is None
    for word in ("fast", own.release, own.digest[:10], own.folder.name):
        assert store.kernel_named(home, word) == own
    with pytest.raises(NotFound, match="other"):
        store.kernel_named(home, "other")
    assert kernel.built(home) == [own]


def test_a_versions_beginning_means_debians_kernel_first(tmp_path):
    home = Home(tmp_path)
    made = {"6.1.0-9-cloud": "", "6.1.192-bugbox-fast": "fast", "6.10.1-bugbox-fast": "fast"}
    for number, (release, profile) in enumerate(made.items()):
        folder = home.kernels / release
        folder.mkdir(parents=True)
        values = {"format": kernel.FORMAT, "digest": f"{number}{number}", "release": release}
        text = json.dumps({**values, "packages": [], "profile": profile})
        (folder / "manifest.json").write_text(text)
        os.utime(folder / "manifest.json", (number, number))
    assert store.kernel_named(home, "6.1").release == "6.1.0-9-cloud"
    assert store.kernel_named(home, "6.1.192").release == "6.1.192-bugbox-fast"
    assert store.kernel_named(home, "6.10").release == "6.10.1-bugbox-fast"
    for word in ("6.2", "6.1.19", ""):
        with pytest.raises(NotFound):
            store.kernel_named(home, word)


def test_a_changed_profile_is_another_kernel(tiny, monkeypatch):
    home, _ = tiny
    first = store.ensure_own_kernel(home, Settings(), "fast")
    more = (*kernel_build.options("fast"), module.Option(name="X", value="y", reason="more"))
    monkeypatch.setattr(module, "options", lambda profile: more)
    assert kernel_build.find(home, "fast") is None
    assert store.ensure_own_kernel(home, Settings(), "fast").digest != first.digest


def test_our_own_file_is_compiled_and_part_of_the_name(tiny, monkeypatch):
    home, source = tiny
    store.ensure_own_kernel(home, Settings(), "fast")
    place = source / "arch/x86/kernel/apic"
    assert "bugbox.lapic_khz" in (place / "bugbox-lapic.c").read_text()
    assert (place / "Makefile").read_text() == "obj-y += apic.o\nobj-y += bugbox-lapic.o\n"
    ours = module._ours
    monkeypatch.setattr(module, "_ours", lambda name: ours(name) + "\n")
    assert kernel_build.find(home, "fast") is None


def test_an_option_the_source_does_not_take_is_named(tiny, monkeypatch):
    home, _ = tiny
    env = module._env()
    monkeypatch.setattr(module, "_env", lambda: {**env, "BREAK": "1"})
    with pytest.raises(BuildFailed) as caught:
        store.ensure_own_kernel(home, Settings(), "fast")
    assert "EXT4_FS was to be y (the root) and is n" in (caught.value.detail or "")
    assert not store.kernels(home)


def test_a_kernel_that_cannot_be_booted_is_not_kept(tiny):
    home, source = tiny
    (source / "kernel.elf").write_bytes(elf(b""))
    with pytest.raises(BuildFailed, match="PVH"):
        store.ensure_own_kernel(home, Settings(), "fast")
    assert not store.kernels(home)
    assert not [p for p in home.tmp.iterdir() if p.is_dir()]


def test_a_compiler_s_complaint_is_shown(tiny):
    home, source = tiny
    (source / "Makefile").write_text(MAKEFILE + "\t@echo 'x.c:1: error' >&2; false\n")
    with pytest.raises(BuildFailed) as caught:
        store.ensure_own_kernel(home, Settings(), "fast")
    assert "x.c:1: error" in (caught.value.detail or "")


def test_what_is_missing_on_the_host_is_named(monkeypatch):
    find = module.proc.find

    def some(program):
        if program in ("flex", "bc"):
            raise MissingTool(f"{program} is not installed")
        return find("true")

    monkeypatch.setattr(module.proc, "find", some)
    monkeypatch.setattr(module, "_LIBELF", (Path("/nowhere/libelf.h"),))
    with pytest.raises(HostError, match="flex, bc, libelf's headers") as caught:
        module._check_tools()
    assert caught.value.hint == "apt-get install flex bc libelf-dev"
