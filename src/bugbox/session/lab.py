# SPDX-License-Identifier: Apache-2.0
"""The lab: a machine that is itself a host, for trying what needs root, KVM or device mapper.

It is a session like any other, on a base image with QEMU and the tools of a host. Two disks are
carried in with it, made from what is finished here:

    state    base image, kernel, initramfs and the layers of the puzzles asked for
    tree     this checkout and its virtual environment, at the same path; Firecracker and its
             jailer, where this host has them

Each is an ext4 image named by what is in it, kept in the cache; a session writes to a
qcow2 over it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from bugbox.config import Settings
from bugbox.errors import HostError, MissingTool
from bugbox.events import step
from bugbox.host.proc import find
from bugbox.image import store
from bugbox.paths import Home, guest_source
from bugbox.session.builder import BuiltLayer
from bugbox.session.plan import Plan
from bugbox.session.prepare import Prepared
from bugbox.storage import file
from bugbox.storage.filesystem import make_ext4
from bugbox.storage.privilege import as_root

__all__ = ["NAME", "STATE_HOME", "carries", "carry", "mount_script", "plan"]

NAME = "lab"
#: Where the carried state lies in the lab: bugbox's default there.
STATE_HOME = "/var/lib/bugbox"
MEM_MIB = 3072
_DISK_BYTES = 8 << 30
_STATE_BYTES = 8 << 30
_TREE_BYTES = 2 << 30
_FORMAT = 1
_PROGRAMS = "programs"
#: Files of a checkout that nobody needs there.
_LEFT_OUT = frozenset({".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "out"})
#: Any fixed time will do for the filesystems' own.
_WHEN = 1_700_000_000
#: So many old images of each kind stay.
_KEPT = 3


def plan(carried: Iterable[tuple[str, Path]] = (), mem_mib: int = MEM_MIB) -> Plan:
    """Describe the lab's machine."""
    return Plan(
        name=NAME,
        title="A host in a machine",
        base=NAME,
        user="root",
        vcpus=min(os.cpu_count() or 1, 4),
        mem_mib=mem_mib,
        disk_bytes=_DISK_BYTES,
        boot_timeout=180.0,
        guest_client=False,
        carried=tuple(carried),
    )


def carry(
    home: Home, settings: Settings, parts: Prepared, layers: Iterable[BuiltLayer]
) -> list[tuple[str, Path]]:
    """Return the disks to carry in, by name; make what is not in the cache."""
    _check_python()
    base = store.ensure_base(home, settings)
    folders = [
        *((f"images/{base.folder.name}/{p.name}", p) for p in base.folder.iterdir()),
        *(
            (f"kernels/{parts.kernel.folder.name}/{p.name}", p)
            for p in parts.kernel.folder.iterdir()
            if p.is_file() and (p.suffix != ".cpio" or p == parts.initrd)
        ),
        *(
            (f"layers/{layer.folder.name}/{p.name}", p)
            for layer in layers
            for p in layer.folder.iterdir()
            if p.is_file()
        ),
    ]
    return [
        ("state", _image(home, "state", sorted(folders), _STATE_BYTES)),
        ("tree", _image(home, "tree", sorted([*_tree(), *_programs(settings)]), _TREE_BYTES)),
    ]


def mount_script() -> str:
    """Return what puts the carried disks in their places, once, as root in the lab."""
    lines = [
        "set -eu",
        "[ ! -e /run/bugbox-lab ] || exit 0",
        f"mkdir -p {STATE_HOME} /carried",
        f"mount LABEL=bugbox-state {STATE_HOME}",
        f"mkdir -p {STATE_HOME}/layers {STATE_HOME}/cache",
        "mount LABEL=bugbox-tree /carried",
    ]
    for place in _places():
        to = shlex.quote(str(place))
        lines.append(f"mkdir -p {to} && mount --bind {shlex.quote(f'/carried{place}')} {to}")
    lines += [
        f"for each in /carried/{_PROGRAMS}/*; do",
        '    [ ! -e "$each" ] || ln -sf "$each" /usr/local/bin/',
        "done",
    ]
    # What a host loads at boot, or when it is first asked for.
    lines.append("modprobe -qa loop dm-mod dm-snapshot tun vhost_vsock || true")
    lines.append("modprobe -q kvm-amd || modprobe -q kvm-intel || true")
    # The machine's own entry in /etc/hosts is answered by nss-myhostname; lo is up already.
    lines.append(": >/run/bugbox-lab")
    return "\n".join(lines)


def carries(path: Path) -> bool:
    """Whether a folder of this host is there in the lab, too."""
    return any(path.is_relative_to(place) for place in _places())


def _check_python() -> None:
    """The lab has Debian 12's Python, and a virtual environment fits one version only."""
    if sys.version_info[:2] != (3, 11) or Path(sys.base_prefix) != Path("/usr"):
        raise HostError(
            f"the lab runs Debian 12's Python 3.11, and this is {platform.python_version()} "
            f"of {sys.base_prefix}",
            hint="make the virtual environment with /usr/bin/python3 of Debian 12",
        )


def _places() -> list[Path]:
    """Folders that must be at the same path in the lab: the outermost ones only."""
    wanted = sorted({Path(sys.prefix), guest_source().parent, Path(__file__).parents[2]})
    kept: list[Path] = []
    for path in wanted:
        if path != Path("/usr") and not any(path.is_relative_to(outer) for outer in kept):
            kept.append(path)
    return kept


def _tree() -> Iterator[tuple[str, Path]]:
    for place in _places():
        for folder, below, files in os.walk(place):
            below[:] = sorted(set(below) - _LEFT_OUT)
            for name in (*files, *(each for each in below if Path(folder, each).is_symlink())):
                path = Path(folder, name)
                yield str(path).lstrip("/"), path


def _programs(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Programs that no package brings, so that the lab has them only from here."""
    for name, wanted in (("firecracker", settings.firecracker), ("jailer", settings.jailer)):
        with contextlib.suppress(MissingTool):
            yield f"{_PROGRAMS}/{name}", Path(find(wanted)).resolve()


def _image(home: Home, kind: str, files: list[tuple[str, Path]], size_bytes: int) -> Path:
    """Return the image of `files`, by name in it; make it when it is not in the cache."""
    digest = _digest(files)
    folder = home.cache / "lab"
    final = folder / f"{kind}-{digest[:16]}.ext4"
    if final.exists():
        os.utime(final)
        return final
    folder.mkdir(exist_ok=True)
    with (
        step(f"Pack what the lab carries: {kind}"),
        file.locked(folder / f".{kind}.lock", waiting="another bugbox is packing: waiting for it"),
        file.workspace(home.tmp, "lab") as work,
    ):
        if not final.exists():
            root = work / "root"
            _link(files, root)
            make_ext4(
                work / "image",
                root,
                size_bytes=size_bytes,
                label=f"bugbox-{kind}",
                uuid=str(uuid.UUID(hex=digest[:32], version=4)),
                when=_WHEN,
                prefix=as_root(),
            )
            (work / "image").chmod(0o444)
            (work / "image").rename(final)
            _forget_old(folder, kind)
    return final


def _digest(files: list[tuple[str, Path]]) -> str:
    hashed = hashlib.sha256(f"{_FORMAT}\n".encode())
    for name, path in files:
        info = path.lstat()
        hashed.update(f"{name}\0{info.st_mode:o} {info.st_size} {info.st_mtime_ns}\n".encode())
    return hashed.hexdigest()


def _link(files: list[tuple[str, Path]], root: Path) -> None:
    """Gather the files below `root`, as hard links where that is possible."""
    root.mkdir()
    for name, path in files:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
            continue
        try:
            target.hardlink_to(path)
        except OSError:  # another filesystem
            shutil.copy2(path, target)


def _forget_old(folder: Path, kind: str) -> None:
    images = sorted(folder.glob(f"{kind}-*.ext4"), key=lambda path: path.stat().st_mtime)
    for path in images[:-_KEPT]:
        path.unlink(missing_ok=True)
