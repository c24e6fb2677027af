# SPDX-License-Identifier: Apache-2.0
"""The store of kernels and base images: find what is built, build what is missing, once.

Everything is named by what it was made from. `find_*` never builds and is quick; `ensure_*` builds
under a lock: when two processes want the same thing, one builds it and the other waits for it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bugbox.config import Settings
from bugbox.errors import NotFound
from bugbox.image import initrd, kernel, kernel_build, rootfs, source
from bugbox.image.kernel import BuiltKernel
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home
from bugbox.storage import file

__all__ = [
    "BuiltImage",
    "BuiltKernel",
    "Estimate",
    "ensure_base",
    "ensure_initrd",
    "ensure_kernel",
    "ensure_own_kernel",
    "estimate",
    "find_base",
    "find_initrd",
    "find_kernel",
    "images",
    "kernel_named",
    "kernels",
    "remove_image",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What building one missing thing takes, about."""

    what: str
    download_bytes: int
    disk_bytes: int
    seconds: float


# Measured on two slow cores with a fast network, and rounded up.
_KERNEL = Estimate(
    what="Debian's kernel", download_bytes=37 << 20, disk_bytes=150 << 20, seconds=10
)
_BASE = Estimate(what="base image", download_bytes=130 << 20, disk_bytes=560 << 20, seconds=75)
_INITRD = Estimate(what="initramfs", download_bytes=0, disk_bytes=4 << 20, seconds=5)


def find_kernel(home: Home) -> BuiltKernel | None:
    """Return the kernel that machines boot by default: the newest of Debian's."""
    return kernel.find(home)


def kernel_named(home: Home, word: str) -> BuiltKernel:
    """Return the kernel that a release, a profile or the start of a digest means; NotFound."""
    return kernel.named(home, word)


def find_initrd(home: Home, of: BuiltKernel) -> Path | None:
    """Return the initramfs that belongs to a kernel and to the guest programs as they are now."""
    return initrd.find(home, of)


def find_base(home: Home, name: str = "debian-12") -> BuiltImage | None:
    """Return the base image that the recipe `name`, as it is now, made for the newest kernel."""
    recipe = source.load(name)
    found = kernel.find(home)
    return None if found is None else rootfs.find(home, recipe, found)


def ensure_kernel(home: Home, settings: Settings) -> BuiltKernel:
    """Return the newest kernel in the store; fetch one when there is none."""
    found = kernel.find(home)
    if found is not None:
        return found
    home.prepare()
    with _building(home, "kernel"):
        return kernel.find(home) or kernel.build(home, settings)


def ensure_own_kernel(home: Home, settings: Settings, profile: str) -> BuiltKernel:
    """Return the kernel that a profile makes; build it when there is none. Takes a quarter hour."""
    found = kernel_build.find(home, profile)
    if found is not None:
        return found
    home.prepare()
    with _building(home, f"{profile} kernel"):
        return kernel_build.find(home, profile) or kernel_build.build(home, settings, profile)


def ensure_initrd(home: Home, of: BuiltKernel) -> Path:
    """Return the initramfs of a kernel; write it when it is missing."""
    found = initrd.find(home, of)
    if found is not None:
        return found
    with _building(home, "initrd"):
        return initrd.find(home, of) or initrd.build(home, of)


def ensure_base(home: Home, settings: Settings, name: str = "debian-12") -> BuiltImage:
    """Return the base image `name`; build it, and the kernel it needs, when it is missing."""
    recipe = source.load(name)
    of = ensure_kernel(home, settings)
    found = rootfs.find(home, recipe, of)
    if found is not None:
        return found
    home.prepare()
    with _building(home, f"base image {name}"):
        return rootfs.find(home, recipe, of) or rootfs.build(home, settings, recipe, of)


def _building(home: Home, what: str) -> AbstractContextManager[None]:
    path = home.tmp / f".{what.replace(' ', '-')}.lock"
    file.sweep(home.tmp)
    return file.locked(path, waiting=f"another bugbox is building the {what}: waiting for it")


def estimate(home: Home, name: str = "debian-12") -> list[Estimate]:
    """Return what is missing to start a machine from `name`, and what building it takes."""
    missing: list[Estimate] = []
    found = kernel.find(home)
    if found is None:
        missing.append(_KERNEL)
    if found is None or initrd.find(home, found) is None:
        missing.append(_INITRD)
    if found is None or find_base(home, name) is None:
        missing.append(_BASE)
    return missing


def images(home: Home) -> list[BuiltImage]:
    """Return all base images, oldest first."""
    return rootfs.built(home)


def kernels(home: Home) -> list[BuiltKernel]:
    """Return all kernels, oldest first."""
    return kernel.built(home)


def remove_image(home: Home, digest: str) -> None:
    """Remove a base image by the start of its digest or by its folder's name."""
    _remove([image.folder for image in rootfs.built(home) if _meant(digest, image)], digest)


def _meant(word: str, image: BuiltImage) -> bool:
    return bool(word) and (image.digest.startswith(word) or word in (image.folder.name, image.name))


def _remove(folders: list[Path], word: str) -> None:
    if not folders:
        raise NotFound(f"nothing in the store is called {word!r}")
    for folder in folders:
        # The manifest goes first: without it nobody takes the rest for a finished one.
        (folder / "manifest.json").unlink(missing_ok=True)
        file.remove_tree(folder)
