# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel, unpacked and never installed, and the static tools beside it.

Kernels that `kernel_build` makes lie in the same store; none of them is taken unless it is named.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bugbox.config import Settings
from bugbox.errors import BuildFailed, NotFound
from bugbox.events import step
from bugbox.host import proc
from bugbox.image import debian, digest, vmlinux
from bugbox.paths import Home
from bugbox.storage import file

__all__ = ["FORMAT", "SUITE", "BuiltKernel", "build", "built", "find", "identity", "named"]

SUITE = "bookworm"
_PACKAGES = ["linux-image-cloud-amd64+", "busybox-static"]
#: Raise it when the same packages make another folder.
FORMAT = 1
_NEEDS = 400 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltKernel:
    """A kernel in the store."""

    digest: str
    folder: Path
    release: str
    #: Names and versions of the packages it came from.
    packages: tuple[str, ...]
    #: The profile of a kernel of our own; empty: Debian's.
    profile: str = ""
    #: What that profile said when it was built.
    profile_digest: str = ""

    @property
    def vmlinux(self) -> Path:
        """The uncompressed kernel, with a PVH note."""
        return self.folder / "vmlinux"

    @property
    def busybox(self) -> Path:
        """Static busybox: the tools for injected scripts."""
        return self.folder / "busybox"

    @property
    def modules(self) -> Path:
        """The folder of the kernel's modules (`/lib/modules/RELEASE` of a machine)."""
        return self.folder / "modules"


def find(home: Home) -> BuiltKernel | None:
    """Return the newest of Debian's kernels in the store: what machines boot by default."""
    kernels = [kernel for kernel in built(home) if not kernel.profile]
    return kernels[-1] if kernels else None


def named(home: Home, word: str) -> BuiltKernel:
    """Return the newest kernel that a release, a profile or the start of a digest means.

    A version's beginning (`6.1`) does, too: Debian's before one of our own.
    """
    kernels = built(home)
    for kernel in reversed(kernels):
        names = (kernel.release, kernel.profile, kernel.folder.name)
        if word and (word in names or kernel.digest.startswith(word)):
            return kernel
    begins = (f"{word}.", f"{word}-")
    meant = [each for each in kernels if word and each.release.startswith(begins)]
    if meant:
        plain = [each for each in meant if not each.profile]
        return (plain or meant)[-1]
    there = ", ".join(kernel.release for kernel in kernels)
    raise NotFound(
        f"no kernel {word} in the store",
        hint=f"there is {there}; `bugbox kernel build` makes one"
        if there
        else "bugbox image build",
    )


def built(home: Home) -> list[BuiltKernel]:
    """Return all kernels in the store, oldest first."""
    found: list[tuple[float, BuiltKernel]] = []
    for path in home.kernels.glob("*/manifest.json"):
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if values.get("format") == FORMAT:
            kernel = BuiltKernel(
                digest=values["digest"],
                folder=path.parent,
                release=values["release"],
                packages=tuple(values["packages"]),
                profile=values.get("profile", ""),
                profile_digest=values.get("profile_digest", ""),
            )
            found.append((path.stat().st_mtime, kernel))
    return [kernel for _, kernel in sorted(found, key=lambda pair: pair[0])]


def build(home: Home, settings: Settings) -> BuiltKernel:
    """Fetch the newest kernel and put it in the store. The caller holds the store's lock."""
    file.require_free(home.tmp, _NEEDS, "a kernel")
    with step("Fetch Debian's kernel"), file.workspace(home.tmp, "kernel") as work:
        packages = debian.fetch(_PACKAGES, suite=SUITE, mirror=settings.debian_mirror, work=work)
        names = tuple(identity(path) for path in packages)
        name = digest.of({"format": str(FORMAT), "packages": "\n".join(names)})
        unpacked = work / "unpacked"
        for package in packages:
            proc.run(["dpkg-deb", "-x", package, unpacked], timeout=300)
        made = work / "kernel"
        release = _arrange(unpacked, made)
        manifest = {"format": FORMAT, "digest": name, "release": release, "packages": names}
        file.write(made / "manifest.json", json.dumps(manifest, indent=2).encode())
        final = home.kernels / f"{release}-{name[: digest.SHORT]}"
        file.publish(made, final)
    return BuiltKernel(digest=name, folder=final, release=release, packages=names)


def identity(package: Path) -> str:
    """Return a package file's name and version."""
    shown = proc.run(["dpkg-deb", "--showformat=${Package}=${Version}", "-W", package], timeout=60)
    return shown.stdout.decode().strip()


def _arrange(unpacked: Path, made: Path) -> str:
    """Pick what we keep out of unpacked packages; return the kernel's release."""
    images = sorted(unpacked.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise BuildFailed(f"the kernel's package holds {len(images)} kernels")
    release = images[0].name.removeprefix("vmlinuz-")
    made.mkdir()
    kernel = vmlinux.extract(images[0].read_bytes(), unzstd)
    if vmlinux.pvh_entry(kernel) is None:
        raise BuildFailed(f"kernel {release} cannot be booted directly: it has no PVH note")
    (made / "vmlinux").write_bytes(kernel)
    for folder in ("usr/lib/modules", "lib/modules"):
        if (unpacked / folder / release).is_dir():
            (unpacked / folder / release).rename(made / "modules")
            break
    else:
        raise BuildFailed(f"the kernel's package holds no modules of {release}")
    for name in ("config", "System.map"):
        (unpacked / f"boot/{name}-{release}").rename(made / name)
    busybox = next(
        p for p in (unpacked / "usr/bin/busybox", unpacked / "bin/busybox") if p.exists()
    )
    busybox.rename(made / "busybox")
    return release


def unzstd(data: bytes) -> bytes:
    """Unpack zstd with the host's program."""
    # Status 1: trailing bytes after the frame, which the kernel's build puts there.
    done = proc.run(["zstd", "-dc"], input=data, timeout=120, ok=(0, 1))
    return done.stdout
