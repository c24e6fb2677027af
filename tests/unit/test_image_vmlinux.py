# SPDX-License-Identifier: Apache-2.0
"""The kernel is taken out of every kind of bzImage, and damage is said, not passed on."""

import gzip
import lzma
import struct

import pytest

from bugbox.errors import BuildFailed
from bugbox.image import lz4, vmlinux
from bugbox.image.kernel import unzstd

ENTRY = 0x1000850


def elf(notes: bytes) -> bytes:
    """A 64-bit ELF file with one PT_NOTE segment."""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    segment = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), 0, 4)
    return bytes(header) + segment + notes


def note(kind: int, value: bytes, name: bytes = b"Xen\0") -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("<III", len(name), len(value), kind) + name + padded


KERNEL = elf(note(6, b"abc") + note(18, struct.pack("<Q", ENTRY))) + b"kernel text " * 5000


def bzimage(payload: bytes, *, setup_sectors: int = 3, offset: int = 100) -> bytes:
    head = bytearray((setup_sectors + 1) * 512)
    head[0x1F1] = setup_sectors
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, offset, len(payload))
    return bytes(head) + b"\xcc" * offset + payload + b"trailing code"


def lz4_packed(data: bytes) -> bytes:
    """Literals only: valid LZ4, without a packer."""
    out = bytearray(lz4.MAGIC)
    for start in range(0, len(data), 8 << 20):
        part = data[start : start + (8 << 20)]
        more = len(part) - 15
        block = b"\xf0" + b"\xff" * (more // 255) + bytes([more % 255]) + part
        out += struct.pack("<I", len(block)) + block
    return bytes(out)


@pytest.mark.parametrize(
    "pack",
    [
        gzip.compress,
        lzma.compress,
        lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
        lz4_packed,
    ],
    ids=["gzip", "xz", "lzma", "lz4"],
)
@pytest.mark.parametrize("size_behind", [b"", struct.pack("<I", len(KERNEL))])
def test_every_packing_is_unpacked(pack, size_behind):
    assert vmlinux.extract(bzimage(pack(KERNEL) + size_behind)) == KERNEL


def test_zstd_is_unpacked_by_the_given_program():
    # A zstd frame with one raw block: magic, descriptor, window, block header, content.
    data = KERNEL[:60000]
    head = len(data) << 3 | 1
    frame = b"\x28\xb5\x2f\xfd\x00\x58" + head.to_bytes(3, "little") + data
    image = bzimage(frame + struct.pack("<I", len(data)))
    assert vmlinux.extract(image, unzstd) == data
    with pytest.raises(BuildFailed, match="28b52ffd"):
        vmlinux.extract(image)


def test_zero_setup_sectors_mean_four():
    image = bytearray(bzimage(gzip.compress(KERNEL), setup_sectors=4))
    image[0x1F1] = 0
    assert vmlinux.extract(bytes(image)) == KERNEL


def test_an_elf_file_is_left_as_it_is():
    assert vmlinux.extract(KERNEL) is KERNEL


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"", "no boot header"),
        (b"MZ" + bytes(2000), "no boot header"),
        (bzimage(b"not packed at all"), "do not know"),
        (bzimage(gzip.compress(KERNEL))[:2200], "cut short"),
        (bzimage(gzip.compress(KERNEL)[:100]), "damaged"),
        (bzimage(b"\x1f\x8b" + bytes(200)), "damaged"),
        (bzimage(gzip.compress(b"a picture")), "no ELF"),
    ],
)
def test_a_damaged_image_is_refused(image, says):
    with pytest.raises(BuildFailed, match=says):
        vmlinux.extract(image)


def test_pvh_entry_is_read_from_the_note():
    assert vmlinux.pvh_entry(KERNEL) == ENTRY


@pytest.mark.parametrize(
    "kernel",
    [
        b"",
        b"\x7fELF\x01\x01" + bytes(100),
        elf(note(6, b"abc")),
        elf(note(18, struct.pack("<Q", ENTRY), name=b"GNU\0")),
        elf(struct.pack("<III", 4, 1 << 31, 18) + b"Xen\0"),
    ],
)
def test_a_kernel_without_a_pvh_note_has_no_entry(kernel):
    assert vmlinux.pvh_entry(kernel) is None


class TestLz4:
    def test_matches_are_copied_also_over_themselves(self):
        # "abc" then a match of 9 from 3 back, then a last literal: abcabcabcabc!
        block = bytes([0x35]) + b"abc" + b"\x03\x00" + b"\x10!"
        packed = lz4.MAGIC + struct.pack("<I", len(block)) + block
        assert lz4.unpack(packed) == b"abcabcabcabc!"

    @pytest.mark.parametrize(
        "block",
        [
            b"\x35abc\x04\x00\x10!",  # further back than there is
            b"\x35abc\x00\x00\x10!",  # from nowhere back
            b"\xf0\xff",  # a length that never ends
            b"\x35ab",
        ],
    )
    def test_damage_is_a_value_error(self, block):
        with pytest.raises(ValueError, match="LZ4"):
            lz4.unpack(lz4.MAGIC + struct.pack("<I", len(block)) + block)

    def test_a_stream_that_unpacks_to_too_much_is_refused(self):
        with pytest.raises(ValueError, match="more than"):
            lz4.unpack(lz4_packed(bytes(5000)), 4000)
