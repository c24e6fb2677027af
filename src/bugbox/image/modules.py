# SPDX-License-Identifier: Apache-2.0
"""Which kernel modules an initramfs needs, and in which order they must be loaded.

A module's file states what it needs in its `.modinfo` section: `depends=` (its symbols come from
there; loading fails without) and `softdep=pre:` (it works better with). We read that ourselves,
so that no modules.dep, and no depmod of the host, is needed.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import BuildFailed

__all__ = ["ModuleInfo", "index", "load_order", "modinfo", "read_module", "stem"]

_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleInfo:
    """What one module needs, by name."""

    depends: tuple[str, ...]
    before: tuple[str, ...] = ()


def stem(name: str) -> str:
    """Return a module's name as the kernel spells it: no folder, no suffix, '_' for '-'."""
    return name.rsplit("/", 1)[-1].split(".", 1)[0].replace("-", "_")


def index(folder: Path) -> dict[str, Path]:
    """Return every module file below a `/lib/modules/RELEASE` folder by its name."""
    return {
        stem(path.name): path
        for path in sorted(folder.rglob("*.ko*"))
        if path.name.endswith(_SUFFIXES)
    }


def read_module(path: Path, unzstd: Callable[[bytes], bytes] | None = None) -> bytes:
    """Return a module's ELF file, unpacked."""
    data = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(data)
    if path.name.endswith(".gz"):
        return gzip.decompress(data)
    if path.name.endswith(".zst"):
        if unzstd is None:
            raise BuildFailed(f"{path.name}: nothing here unpacks zstd")
        return unzstd(data)
    return data


def modinfo(elf: bytes) -> ModuleInfo:
    """Read what a module needs out of its ELF file."""
    depends: list[str] = []
    before: list[str] = []
    for entry in _section(elf, b".modinfo").split(b"\0"):
        key, _, value = entry.decode("ascii", "replace").partition("=")
        if key == "depends":
            depends += [stem(name) for name in value.split(",") if name]
        elif key == "softdep":
            before += _pre(value)
    return ModuleInfo(depends=tuple(depends), before=tuple(before))


def load_order(
    wanted: Iterable[str], known: Mapping[str, ModuleInfo] | Callable[[str], ModuleInfo | None]
) -> list[str]:
    """Return `wanted` and all they need, each after what it needs.

    A wanted module that does not exist is built into the kernel: it is left out. One that a
    module depends on and that does not exist is an error.
    """
    look = known.get if isinstance(known, Mapping) else known
    order: list[str] = []
    open_: set[str] = set()

    def visit(name: str, needed_by: str) -> None:
        if name in order:
            return
        if name in open_:
            raise BuildFailed(f"kernel modules {name} and {needed_by} need each other")
        info = look(name)
        if info is None:
            if needed_by:
                raise BuildFailed(f"kernel module {needed_by} needs {name}, which is not there")
            return
        open_.add(name)
        for other in info.before:
            if look(other) is not None:
                visit(other, name)
        for other in info.depends:
            visit(other, name)
        open_.remove(name)
        order.append(name)

    for name in wanted:
        visit(stem(name), "")
    return order


def _pre(softdep: str) -> list[str]:
    names: list[str] = []
    taking = False
    for word in softdep.split():
        if word.endswith(":"):
            taking = word == "pre:"
        elif taking:
            names.append(stem(word))
    return names


def _section(elf: bytes, wanted: bytes) -> bytes:
    if elf[:6] != b"\x7fELF\x02\x01":
        raise BuildFailed("not a 64-bit kernel module")
    try:
        (table,) = struct.unpack_from("<Q", elf, 40)
        size, count, names_at = struct.unpack_from("<HHH", elf, 58)
        headers = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
        names = elf[headers[names_at][4] :]
    except (struct.error, IndexError):
        raise BuildFailed("a kernel module is cut short") from None
    for name, _, _, _, offset, length in headers:
        if names[name : names.find(b"\0", name)] == wanted:
            return elf[offset : offset + length]
    return b""
