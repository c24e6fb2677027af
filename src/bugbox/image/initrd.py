# SPDX-License-Identifier: Apache-2.0
"""The initramfs: the lifeline, static tools, and the kernel modules that find the root.

/init             the lifeline, which is the agent as well
/tools/busybox    tools and shell for injected scripts
/client/bugbox    what `bugbox check` runs inside a machine
/modules/list     file names of the modules, in the order to load them
/modules/vsock    those to load besides, where the lifeline's way to the host is a vsock
/modules/*.ko     uncompressed
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from bugbox.events import step
from bugbox.host import proc
from bugbox.image import cpio, digest, modules
from bugbox.image.kernel import BuiltKernel, unzstd
from bugbox.paths import Home, guest_source
from bugbox.storage import file
from bugbox.storage.known import Known

__all__ = ["WANTED", "WANTED_VSOCK", "build", "contents", "find", "path"]

#: Modules without which a machine has no disk, lifeline, entropy or network card. One that is built
#: into the kernel is left out.
WANTED = (
    "virtio_mmio",  # the bus of QEMU's microvm, and Firecracker's
    "virtio_blk",
    "virtio_console",  # the lifeline's port
    "virtio_rng",
    "virtio_net",
    "overlay",  # a root joined of several drives; the build machine
)
#: And without which it has no lifeline on a VMM that has no virtio-serial port: Firecracker.
WANTED_VSOCK = ("vmw_vsock_virtio_transport",)
_FORMAT = 2
_known = Known()
_EMPTY = ("dev", "proc", "sys", "newroot", "run")


def find(home: Home, kernel: BuiltKernel) -> Path | None:
    """Return the initramfs for `kernel` and the guest programs as they are now, if it is built."""
    place = path(kernel)
    return place if place.exists() else None


def path(kernel: BuiltKernel) -> Path:
    """Return where the initramfs for `kernel` and the present guest programs is, or will be."""
    files = _guest_files()
    key = _known.of(files.values(), lambda: _digest(files))
    return kernel.folder / f"initrd-{key[: digest.SHORT]}.cpio"


def _digest(files: Mapping[str, Path]) -> str:
    wanted = " ".join((*WANTED, *WANTED_VSOCK))
    parts: dict[str, bytes | str] = {"format": str(_FORMAT), "wanted": wanted}
    for name, path in files.items():
        parts[f"guest {name}"] = path.read_bytes()
    return digest.of(parts)


def build(home: Home, kernel: BuiltKernel) -> Path:
    """Write the initramfs beside its kernel. The caller holds the store's lock."""
    final = path(kernel)
    with step("Write the initramfs"), file.workspace(home.tmp, "initrd") as work:
        lifeline, client = _guest_programs(work)
        files = modules.index(kernel.modules)
        infos: dict[str, modules.ModuleInfo] = {}

        def look(name: str) -> modules.ModuleInfo | None:
            if name not in infos and name in files:
                infos[name] = modules.modinfo(modules.read_module(files[name], unzstd))
            return infos.get(name)

        def read(names: Iterable[str]) -> dict[str, bytes]:
            return {name: modules.read_module(files[name], unzstd) for name in names}

        always = modules.load_order(WANTED, look)
        both = modules.load_order((*WANTED, *WANTED_VSOCK), look)
        entries = contents(
            lifeline=lifeline.read_bytes(),
            client=client.read_bytes(),
            busybox=kernel.busybox.read_bytes(),
            loaded=read(always),
            vsock=read(name for name in both if name not in always),
        )
        file.write(final, cpio.archive(entries), mode=0o444)
    return final


def contents(
    *,
    lifeline: bytes,
    client: bytes,
    busybox: bytes,
    loaded: Mapping[str, bytes],
    vsock: Mapping[str, bytes],
) -> list[cpio.Entry]:
    """Return the initramfs' entries; `loaded` and `vsock` are in load order."""
    return [
        *(cpio.directory(name) for name in _EMPTY),
        cpio.file("init", lifeline, 0o755),
        cpio.directory("tools"),
        cpio.file("tools/busybox", busybox, 0o755),
        cpio.directory("client"),
        cpio.file("client/bugbox", client, 0o755),
        cpio.directory("modules"),
        cpio.file("modules/list", _listed(loaded)),
        cpio.file("modules/vsock", _listed(vsock)),
        *(cpio.file(f"modules/{name}.ko", data) for name, data in {**loaded, **vsock}.items()),
    ]


def _listed(names: Iterable[str]) -> bytes:
    return "".join(f"{name}.ko\n" for name in names).encode()


def _prebuilt() -> Path | None:
    """Guest programs compiled elsewhere, for hosts without a C compiler."""
    folder = os.environ.get("BUGBOX_GUEST_BIN")
    return Path(folder) if folder else None


def _guest_files() -> dict[str, Path]:
    prebuilt = _prebuilt()
    if prebuilt is not None:
        return {name: prebuilt / name for name in ("lifeline", "bugbox")}
    # On the path of every start: walking with pathlib took most of a look for what is built.
    source = str(guest_source())
    found: dict[str, Path] = {}
    for folder, _, names in os.walk(source):
        for name in names:
            if name.endswith((".c", ".h", ".S")) or name == "Makefile":
                place = os.path.join(folder, name)  # noqa: PTH118
                found[place[len(source) + 1 :]] = Path(place)
    return dict(sorted(found.items()))


def _guest_programs(work: Path) -> tuple[Path, Path]:
    folder = _prebuilt()
    if folder is None:
        folder = work / "guest"
        folder.mkdir()
        proc.run(["make", "-C", guest_source(), f"OUT={folder}"], timeout=300)
    return folder / "lifeline", folder / "bugbox"
