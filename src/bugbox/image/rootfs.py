# SPDX-License-Identifier: Apache-2.0
"""Build a base image: packages and recipe into a root folder, the folder into an ext4 image."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bugbox.config import Settings
from bugbox.errors import BuildFailed
from bugbox.events import step
from bugbox.host import proc
from bugbox.image import debian, digest
from bugbox.image.kernel import BuiltKernel
from bugbox.image.recipe import Recipe
from bugbox.paths import Home
from bugbox.storage import file
from bugbox.storage.filesystem import make_ext4
from bugbox.storage.privilege import as_root

__all__ = ["BuiltImage", "build", "built", "find"]

_FORMAT = 1
#: Root folder and image at their largest, side by side.
_NEEDS = 1600 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """A base image in the store."""

    #: Recipe and exact packages: what names it.
    digest: str
    #: The recipe alone, with the kernel's release.
    recipe: str
    name: str
    folder: Path
    #: Size of the disk the guest sees.
    size_bytes: int
    #: `package=version`, sorted.
    packages: tuple[str, ...]
    kernel_release: str
    #: SHA-256 of the image file.
    sha256: str

    @property
    def rootfs(self) -> Path:
        """The ext4 image, raw and sparse."""
        return self.folder / "rootfs.ext4"


def find(home: Home, recipe: Recipe, kernel: BuiltKernel) -> BuiltImage | None:
    """Return the newest image made by exactly this recipe for this kernel."""
    wanted = recipe.digest(kernel.release)
    fitting = [image for image in built(home) if image.recipe == wanted]
    return fitting[-1] if fitting else None


def built(home: Home) -> list[BuiltImage]:
    """Return all base images in the store, oldest first."""
    found: list[tuple[float, BuiltImage]] = []
    for path in home.images.glob("*/manifest.json"):
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        image = _of_manifest(path.parent, values)
        if image is not None:
            found.append((path.stat().st_mtime, image))
    return [image for _, image in sorted(found, key=lambda pair: pair[0])]


def _of_manifest(folder: Path, values: Any) -> BuiltImage | None:
    """Return the image of a manifest; None of one that is not as we write them."""
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        return None
    fields = {each.name for each in dataclasses.fields(BuiltImage)} - {"folder"}
    if not fields <= values.keys() or not isinstance(values["packages"], list):
        return None
    known = {name: values[name] for name in fields}
    return BuiltImage(folder=folder, **(known | {"packages": tuple(values["packages"])}))


def build(home: Home, settings: Settings, recipe: Recipe, kernel: BuiltKernel) -> BuiltImage:
    """Build the image and put it in the store. The caller holds the store's lock."""
    file.require_free(home.tmp, _NEEDS, f"the base image {recipe.name}")
    recipe_digest = recipe.digest(kernel.release)
    with (
        step(f"Build base image {recipe.name}"),
        file.workspace(home.tmp, "image") as work,
    ):
        root = _make_root(recipe, settings, kernel, work)
        epoch = int((work / "epoch").read_text())
        finish = _script(work, "finish.sh", recipe.scripts["finish.sh"])
        proc.run([*as_root(), finish, root, str(epoch)], timeout=600)
        packages = _packages(root)
        name = digest.of({"recipe": recipe_digest, "packages": "\n".join(packages)})
        made = work / "made"
        made.mkdir()
        make_ext4(
            made / "rootfs.ext4",
            root,
            size_bytes=recipe.size_bytes,
            label="bugbox",
            uuid=str(uuid.UUID(hex=recipe_digest[:32], version=4)),
            when=epoch,
            prefix=as_root(),
        )
        (made / "rootfs.ext4").chmod(0o444)
        values = {
            "digest": name,
            "recipe": recipe_digest,
            "name": recipe.name,
            "size_bytes": recipe.size_bytes,
            "packages": packages,
            "kernel_release": kernel.release,
            "sha256": file.digest(made / "rootfs.ext4"),
        }
        manifest = json.dumps({"format": _FORMAT, **values}, indent=2)
        file.write(made / "manifest.json", manifest.encode())
        final = home.images / f"{recipe.name}-{name[: digest.SHORT]}"
        file.publish(made, final)
    image = next((image for image in built(home) if image.folder == final), None)
    if image is None:
        raise BuildFailed(f"{final} was built and cannot be read back")
    return image


def _make_root(recipe: Recipe, settings: Settings, kernel: BuiltKernel, work: Path) -> Path:
    overlay = work / "overlay.tar"
    with overlay.open("wb") as target:
        _write_overlay(recipe, kernel, target)
    return debian.make_root(
        packages=recipe.packages,
        suite=recipe.suite,
        mirror=settings.debian_mirror,
        overlay=overlay,
        configure=_script(work, "configure.sh", recipe.scripts["configure.sh"]),
        work=work,
        env={
            "BUGBOX_WORK": str(work),
            "BUGBOX_RELEASE": kernel.release,
            "BUGBOX_UNITS": " ".join(recipe.preset_units()),
        },
    )


def _script(work: Path, name: str, text: bytes) -> Path:
    path = work / name
    path.write_bytes(text)
    path.chmod(0o755)
    return path


def _packages(root: Path) -> tuple[str, ...]:
    listed = proc.run(
        [
            "dpkg-query",
            f"--admindir={root}/var/lib/dpkg",
            "--show",
            "--showformat=${Package}=${Version}\\n",
        ],
        timeout=60,
    )
    return tuple(sorted(listed.stdout.decode().split()))


def _write_overlay(recipe: Recipe, kernel: BuiltKernel, target: io.BufferedIOBase) -> None:
    """Write a tar of all that the recipe and the kernel put into the image, owned by root."""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        seen: set[str] = set()
        for path, file_ in recipe.files.items():
            _add_folders(tar, path, seen)
            _add(tar, path, file_.data, file_.mode)
        preset = "etc/systemd/system-preset/00-bugbox.preset"
        _add_folders(tar, preset, seen)
        _add(tar, preset, recipe.preset().encode())
        for path in recipe.masks():
            _add_folders(tar, path, seen)
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "/dev/null", 0o777
            tar.addfile(entry)
        for path, data in _module_files(kernel):
            _add_folders(tar, path, seen)
            _add(tar, path, data)


def _module_files(kernel: BuiltKernel) -> Iterator[tuple[str, bytes]]:
    for path in sorted(kernel.modules.rglob("*")):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(kernel.modules).as_posix()
            yield f"usr/lib/modules/{kernel.release}/{name}", path.read_bytes()


def _add_folders(tar: tarfile.TarFile, path: str, seen: set[str]) -> None:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        name = "/".join(parts[:depth])
        # What the packages bring keeps its mode: only folders of our own are named.
        if name in seen or not _ours(name):
            continue
        seen.add(name)
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)


def _ours(folder: str) -> bool:
    return folder.startswith(("usr/lib/modules", "usr/lib/bugbox", "etc/systemd/"))


def _add(tar: tarfile.TarFile, path: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
