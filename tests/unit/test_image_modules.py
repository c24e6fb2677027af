# SPDX-License-Identifier: Apache-2.0
"""Modules are read, and ordered so that each comes after what it needs."""

import lzma
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.errors import BuildFailed
from bugbox.image.modules import ModuleInfo, index, load_order, modinfo, read_module, stem


def module(**fields: str) -> bytes:
    """An ELF file with a .modinfo section."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in fields.items())
    names = b"\0.modinfo\0.shstrtab\0"
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    at_info = 64
    at_names = at_info + len(info)
    table = at_names + len(names)
    struct.pack_into("<Q", header, 40, table)
    struct.pack_into("<HHH", header, 58, 64, 3, 2)

    def section(name: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)

    sections = bytes(64) + section(1, at_info, len(info)) + section(10, at_names, len(names))
    return bytes(header) + info + names + sections


def needs(*names: str, before: tuple[str, ...] = ()) -> ModuleInfo:
    return ModuleInfo(depends=names, before=before)


def test_modinfo_reads_what_a_module_needs():
    info = modinfo(
        module(license="GPL", depends="virtio,virtio-ring", softdep="pre: crc32c post: x")
    )
    assert info == needs("virtio", "virtio_ring", before=("crc32c",))


def test_a_module_that_needs_nothing():
    assert modinfo(module(depends="")) == needs()


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x01\x01" + bytes(80), module()[:90]])
def test_what_is_no_module_is_refused(data):
    with pytest.raises(BuildFailed):
        modinfo(data)


def test_order_puts_each_after_its_needs():
    known = {
        "virtio_ring": needs(),
        "virtio": needs("virtio_ring"),
        "virtio_mmio": needs("virtio", "virtio_ring"),
        "virtio_blk": needs("virtio"),
    }
    order = load_order(["virtio-blk", "virtio_mmio"], known)
    assert order == ["virtio_ring", "virtio", "virtio_blk", "virtio_mmio"]


def test_a_wanted_module_that_is_built_in_is_left_out():
    assert load_order(["ext4", "loop"], {"loop": needs()}) == ["loop"]


def test_a_missing_soft_dependency_is_left_out():
    assert load_order(["ext4"], {"ext4": needs(before=("crc32c",))}) == ["ext4"]


def test_a_missing_dependency_is_named():
    with pytest.raises(BuildFailed, match="virtio_blk needs virtio"):
        load_order(["virtio_blk"], {"virtio_blk": needs("virtio")})


def test_a_circle_is_named():
    with pytest.raises(BuildFailed, match="need each other"):
        load_order(["a"], {"a": needs("b"), "b": needs("a")})


@given(st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=30), st.randoms())
def test_any_order_is_right(graph, random):
    # Module n may need only modules below n, so there is no circle.
    known = {f"m{n}": needs(*{f"m{d}" for d in deps if d < n}) for n, deps in enumerate(graph)}
    wanted = random.sample(sorted(known), len(known))
    order = load_order(wanted, known)
    assert sorted(order) == sorted(known)
    for name in order:
        assert all(order.index(d) < order.index(name) for d in known[name].depends)


def test_names_are_the_kernels():
    assert stem("kernel/drivers/block/virtio-blk.ko.xz") == "virtio_blk"


def test_index_and_packed_modules(tmp_path):
    (tmp_path / "kernel/fs").mkdir(parents=True)
    (tmp_path / "kernel/fs/over-lay.ko.xz").write_bytes(lzma.compress(b"elf"))
    (tmp_path / "modules.dep").write_text("")
    files = index(tmp_path)
    assert list(files) == ["over_lay"]
    assert read_module(files["over_lay"]) == b"elf"
