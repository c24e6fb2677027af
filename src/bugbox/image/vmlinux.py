# SPDX-License-Identifier: Apache-2.0
"""Get the uncompressed kernel out of a bzImage, and see whether it can be booted by PVH.

A bzImage is a real-mode setup part followed by a small program that holds the kernel, compressed.
Its header (Documentation/arch/x86/boot.rst) says where the compressed bytes lie. PVH is the way
a VMM enters a plain ELF kernel; the kernel states its entry point in an ELF note. Bytes in, bytes
out: nothing here touches a file.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from bugbox.errors import BuildFailed
from bugbox.image import lz4

__all__ = ["NeedsZstd", "compressed_kernel", "extract", "pvh_entry"]

_ELF = b"\x7fELF"
_ZSTD = b"\x28\xb5\x2f\xfd"
_NOTE = 4  # PT_NOTE
_PVH = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_LARGEST = 512 << 20

#: Unpacks zstd, which the standard library does not know yet.
NeedsZstd = Callable[[bytes], bytes]


def extract(image: bytes, unzstd: NeedsZstd | None = None) -> bytes:
    """Return the vmlinux inside a bzImage; an image that is an ELF file comes back as it is."""
    if image.startswith(_ELF):
        return image
    payload = compressed_kernel(image)
    vmlinux = _unpacked(payload, unzstd)
    if not vmlinux.startswith(_ELF):
        raise BuildFailed("the kernel image holds no ELF kernel")
    return vmlinux


def compressed_kernel(image: bytes) -> bytes:
    """Return the compressed bytes that the boot header points at."""
    if len(image) < 0x260 or image[0x202:0x206] != b"HdrS":
        raise BuildFailed("not a Linux kernel image: it has no boot header")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < 0x208:
        raise BuildFailed(f"kernel boot protocol {version >> 8}.{version & 255:02} is too old")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not length or len(payload) != length:
        raise BuildFailed("the kernel image is cut short")
    return payload


def _unpacked(payload: bytes, unzstd: NeedsZstd | None) -> bytes:
    # The kernel's build puts the unpacked size behind the stream: every one of these ignores it.
    try:
        if payload.startswith(b"\x1f\x8b"):
            return _stream(zlib.decompressobj(31), payload)
        if payload.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            return _stream(lzma.LZMADecompressor(), payload)
        if payload.startswith(b"BZh"):
            return _stream(bz2.BZ2Decompressor(), payload)
        if payload.startswith(lz4.MAGIC):
            return lz4.unpack(payload, _LARGEST)
    except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise BuildFailed(f"the compressed kernel is damaged: {error}") from error
    if payload.startswith(_ZSTD) and unzstd is not None:
        return unzstd(payload)
    raise BuildFailed(f"kernel compressed in a way we do not know (it starts {payload[:6].hex()})")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, limit: int, /) -> bytes: ...


def _stream(decompressor: _Decompressor, payload: bytes) -> bytes:
    data = decompressor.decompress(payload, _LARGEST)
    if not decompressor.eof:
        raise ValueError("it ends too early, or is too large")
    return data


def pvh_entry(vmlinux: bytes) -> int | None:
    """Return the address of the PVH entry point, or None when the kernel has none."""
    if not vmlinux.startswith(_ELF + b"\x02\x01"):
        return None
    (headers,) = struct.unpack_from("<Q", vmlinux, 32)
    size, count = struct.unpack_from("<HH", vmlinux, 54)
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from(
            "<IIQQQQ", vmlinux, headers + number * size
        )
        if kind == _NOTE:
            found = _find_note(vmlinux[offset : offset + length])
            if found is not None:
                return found
    return None


def _find_note(notes: bytes) -> int | None:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        value_at = name_at + (name_size + 3 & ~3)
        value = notes[value_at : value_at + size]
        if kind == _PVH and notes[name_at : name_at + name_size] == b"Xen\0" and len(value) >= 4:
            return int.from_bytes(value, "little")
        at = value_at + (size + 3 & ~3)
    return None
