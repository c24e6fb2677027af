# SPDX-License-Identifier: Apache-2.0
"""Every file name we use, each with a sentence. Nothing else in bugbox joins such names.

`Home` is the state directory (`BUGBOX_HOME`); `Home.runtime` is its short-lived, short-named
other half for sockets, because a UNIX socket's path may have 107 bytes at most.
Imported by the thin clients: standard library only, and little of it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from zlib import crc32

from bugbox.errors import HostError

__all__ = ["DATA", "Home", "SessionPaths", "guest_source", "shipped_puzzles"]

#: The checkout's root when run from one, else None.
_CHECKOUT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).resolve().parent


def shipped_puzzles() -> Path:
    """The catalogue that comes with bugbox: `puzzles/` of the checkout, or of the wheel."""
    packaged = DATA / "_puzzles"
    return packaged if packaged.is_dir() else _CHECKOUT / "puzzles"


def guest_source() -> Path:
    """Source of what runs in the guest: `guest/` of the checkout, or of the wheel."""
    packaged = DATA / "_guest"
    return packaged if packaged.is_dir() else _CHECKOUT / "guest"


def default_home() -> Path:
    """Where state lives when neither BUGBOX_HOME nor the settings say: XDG for people."""
    if os.geteuid() == 0:
        return Path("/var/lib/bugbox")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
    return Path(data) / "bugbox"


class Home:
    """The state directory. Making one touches nothing; `prepare` creates the folders."""

    def __init__(self, root: Path | None = None) -> None:
        named = os.environ.get("BUGBOX_HOME")
        self.root = Path(os.path.abspath(root or named or default_home()))  # noqa: PTH100

    def prepare(self) -> None:
        """Create the folders that do not exist yet; HostError when that cannot be."""
        try:
            self._make_folders()
        except OSError as error:
            raise HostError(
                f"cannot make {error.filename}: {error.strerror}",
                hint="set BUGBOX_HOME to a folder of yours",
            ) from error
        for folder in self._short:
            _check_ours(folder)

    def _make_folders(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.images, self.kernels, self.layers, self.sessions, self.cache, self.tmp):
            folder.mkdir(exist_ok=True)
        # What a machine had in its memory is nobody else's business.
        self.templates.mkdir(mode=0o700, exist_ok=True)
        for folder in self._short:
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)

    @property
    def _short(self) -> tuple[Path, Path]:
        """The folders of `runtime` that are ours to make, and nobody else's to write in."""
        return self.runtime.parent, self.runtime

    @property
    def settings(self) -> Path:
        """Settings of this host, TOML."""
        return self.root / "config.toml"

    @property
    def images(self) -> Path:
        """Built base images: one folder a digest."""
        return self.root / "images"

    @property
    def kernels(self) -> Path:
        """Kernels with their modules and initramfs: one folder a digest."""
        return self.root / "kernels"

    @property
    def layers(self) -> Path:
        """Built puzzles: one folder a digest with the tar and the qcow2."""
        return self.root / "layers"

    @property
    def puzzles(self) -> Path:
        """Puzzles that were added: one folder each, and their layers in `.layers`."""
        return self.root / "puzzles"

    def added_layer(self, name: str) -> Path:
        """The layer that came with an added puzzle."""
        return self.puzzles / ".layers" / f"{name}.tar.zst"

    @property
    def templates(self) -> Path:
        """Saved machines to clone from: one folder a key."""
        return self.root / "templates"

    @property
    def sessions(self) -> Path:
        """One folder a session."""
        return self.root / "sessions"

    @property
    def cache(self) -> Path:
        """What can be had again: downloads, measured clock rates, probe results."""
        return self.root / "cache"

    @property
    def reports(self) -> Path:
        """What to send us after a crash: one text file each."""
        return self.root / "reports"

    @property
    def tmp(self) -> Path:
        """Half-built things; whatever no living process has locked is rubbish."""
        return self.root / "tmp"

    @property
    def jails(self) -> Path:
        """Roots of jailed VMMs; on the filesystem of the disks, which are linked there."""
        return self.root / "jails"

    @property
    def leases(self) -> Path:
        """What is numbered on this host and taken, whichever state directory took it."""
        return self.runtime.parent / "leases"

    @property
    def progress(self) -> Path:
        """What the learner solved: one JSON line an event."""
        return self.root / "progress.jsonl"

    @property
    def keeper_lock(self) -> Path:
        """Locked by the living keeper for as long as it lives."""
        return self.root / "keeper.lock"

    @property
    def keeper_log(self) -> Path:
        """What the keeper had to say."""
        return self.root / "keeper.log"

    @property
    def runtime(self) -> Path:
        """Short path for sockets: /run/bugbox/XXXXXXXX, or the user's own place."""
        tag = f"{crc32(os.fsencode(self.root)):08x}"
        if os.geteuid() == 0:
            usual = Path("/run/bugbox")
            # In a machine of ours that is the lifeline's, and read-only: there we are a guest.
            if usual.is_dir() and not os.access(usual, os.W_OK):
                usual = Path("/run/bugbox-host")
            return usual / tag
        own = os.environ.get("XDG_RUNTIME_DIR")
        if own and os.access(own, os.W_OK):
            return Path(own) / "bugbox" / tag
        return Path("/tmp") / f"bugbox-{os.geteuid()}" / tag

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens; mode 0600."""
        return self.runtime / "keeper"

    def session(self, id: str) -> SessionPaths:
        """Names inside one session's folder."""
        return SessionPaths(self.sessions / id, self.runtime / id)


def _check_ours(folder: Path) -> None:
    """In /tmp anybody may make a folder of our name first, and put a keeper of theirs in it."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise HostError(f"{folder} belongs to somebody else", hint="set XDG_RUNTIME_DIR")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        folder.chmod(0o711)


class SessionPaths:
    """The two folders of one session: what stays, and its sockets."""

    def __init__(self, root: Path, runtime: Path) -> None:
        self.root = root
        self.runtime = runtime

    @property
    def record(self) -> Path:
        """What the session holds, written before it is taken."""
        return self.root / "record.json"

    @property
    def lock(self) -> Path:
        """Locked by whoever is changing the session right now."""
        return self.root / "lock"

    @property
    def disk(self) -> Path:
        """The session's own writes, a qcow2 over the layer."""
        return self.root / "disk.qcow2"

    @property
    def memory(self) -> Path:
        """A saved machine's memory and the state of its devices; mode 0600."""
        return self.root / "memory.state"

    @property
    def console(self) -> Path:
        """What the serial console said; capped."""
        return self.root / "console.log"

    @property
    def vmm_log(self) -> Path:
        """What the VMM itself said."""
        return self.root / "vmm.log"

    @property
    def argv(self) -> Path:
        """The VMM's exact command line, JSON."""
        return self.root / "argv.json"

    @property
    def boot_events(self) -> Path:
        """Milestones of the last boot, JSON."""
        return self.root / "boot.json"

    @property
    def checkpoints(self) -> Path:
        """Copies of the running machine to go back to: one folder a label."""
        return self.root / "checkpoints"

    @property
    def qmp(self) -> Path:
        """QEMU's monitor; takes one client."""
        return self.runtime / "qmp"

    @property
    def lifeline(self) -> Path:
        """The lifeline's port; takes one client."""
        return self.runtime / "lifeline"

    @property
    def console_socket(self) -> Path:
        """The serial console; takes one client."""
        return self.runtime / "console"

    @property
    def vmm_config(self) -> Path:
        """What Firecracker boots from by itself, JSON."""
        return self.root / "firecracker.json"

    @property
    def api(self) -> Path:
        """Firecracker's API."""
        return self.runtime / "api"

    @property
    def control(self) -> Path:
        """Where a Firecracker machine's warden is told what to do."""
        return self.runtime / "control"

    @property
    def vsock(self) -> Path:
        """Firecracker's way to all vsock ports of its guest."""
        return self.runtime / "vsock"

    @property
    def state_socket(self) -> Path:
        """Where a machine that is being saved sends the state of its devices."""
        return self.runtime / "state"
