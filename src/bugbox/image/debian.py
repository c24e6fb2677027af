# SPDX-License-Identifier: Apache-2.0
"""Drive mmdebstrap: fetch packages without installing them, and make a root folder of packages.

mmdebstrap brings its own apt set-up, so that this works the same on a Debian host and on an Ubuntu
one, and it knows Debian's default mirrors. It runs as (namespace) root: see `storage.privilege`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path

from bugbox.errors import BuildFailed, CommandFailed, HostError
from bugbox.events import progress
from bugbox.host import proc
from bugbox.storage.privilege import as_root

__all__ = ["fetch", "make_root"]

#: Debian's archive keys. An Ubuntu host has them only when this package is installed.
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TIMEOUT = 3600.0

# Runs with apt set up and the package lists loaded, before anything would be unpacked.
# A metapackage has no content; what it depends on has.
_FETCH = """\
#!/bin/sh
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$BUGBOX_INTO"
for name in $BUGBOX_FETCH; do
    case $name in
        *+) name=$(apt-cache depends "${name%+}" | sed -n 's/^ *Depends: *//p' | head -n 1) ;;
    esac
    apt-get download -q "$name"
done
"""


def fetch(names: list[str], *, suite: str, mirror: str, work: Path) -> list[Path]:
    """Download packages into `work`, signatures checked; return the files.

    A name with a `+` behind it is a metapackage: the first package it depends on is taken.
    """
    into = work / "packages"
    into.mkdir()
    script = work / "fetch.sh"
    script.write_text(_FETCH)
    script.chmod(0o755)
    argv = ["--variant=custom", f"--extract-hook={script}", suite, str(work / "apt")]
    env = {"BUGBOX_FETCH": " ".join(names), "BUGBOX_INTO": str(into)}
    _mmdebstrap(argv, mirror=mirror, suite=suite, work=work, env=env)
    found = sorted(into.glob("*.deb"))
    if len(found) != len(names):
        raise BuildFailed(f"expected {len(names)} packages, got {[path.name for path in found]}")
    return found


def make_root(
    *,
    packages: tuple[str, ...],
    suite: str,
    mirror: str,
    overlay: Path,
    configure: Path,
    work: Path,
    env: Mapping[str, str],
) -> Path:
    """Install `packages` into a new folder of `work`, with `overlay` over them; run `configure`."""
    root = work / "root"
    argv = [
        "--variant=minbase",
        '--aptopt=Apt::Install-Recommends "false"',
        f"--include={','.join(packages)}",
        f"--customize-hook=tar-in {overlay} /",
        f"--customize-hook={configure}",
        suite,
        str(root),
    ]
    with _watched(work / "log", root):
        _mmdebstrap(argv, mirror=mirror, suite=suite, work=work, env=env)
    return root


def _mmdebstrap(
    argv: list[str], *, mirror: str, suite: str, work: Path, env: Mapping[str, str]
) -> None:
    if not _KEYRING.exists():
        raise HostError(
            "the keys of Debian's package archive are not on this host",
            hint="apt-get install debian-archive-keyring",
        )
    scratch = work / "scratch"
    scratch.mkdir(exist_ok=True)
    sources = [f"deb {mirror} {s} main" for s in (suite, f"{suite}-updates")] if mirror else []
    command = [
        *(*as_root(), "mmdebstrap", "--mode=root", "--format=directory"),
        f"--keyring={_KEYRING}",
        f"--logfile={work / 'log'}",
        *argv,
        *sources,
    ]
    try:
        proc.run(command, timeout=_TIMEOUT, env={**env, "TMPDIR": str(scratch)})
    except CommandFailed as error:
        raise BuildFailed(
            f"mmdebstrap could not make {suite}",
            detail=_tail(error.stderr),
            hint=_why(error.stderr),
        ) from error


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _why(stderr: str) -> str | None:
    if "No space left" in stderr:
        return "the disk that holds BUGBOX_HOME is full"
    if any(word in stderr for word in ("Could not resolve", "Failed to fetch", "Cannot initiate")):
        return "the package archive is out of reach: see the network, http_proxy, or debian_mirror"
    return None


# What mmdebstrap says when it begins each of its stages; the words are matched from the start.
_STAGES = (
    ("running apt-get update", "reading package lists"),
    ("downloading packages", "downloading packages"),
    ("extracting archives", "unpacking"),
    ("installing essential packages", "configuring essential packages"),
    ("installing remaining packages", "configuring packages"),
    ("running special hook", "setting up"),
    ("cleaning package lists", "cleaning up"),
)


@contextmanager
def _watched(log: Path, root: Path) -> Iterator[None]:
    """Tell how far mmdebstrap is, from its log, while the block runs."""
    done = threading.Event()
    # A thread starts with no context of its own, and the listener of events is part of it.
    watcher = threading.Thread(
        target=copy_context().run, args=(_watch, log, root, done), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _watch(log: Path, root: Path, done: threading.Event) -> None:
    told = -1
    while not done.wait(0.5):
        try:
            lines = log.read_text(errors="replace")
        except FileNotFoundError:
            continue
        reached = [n for n, (words, _) in enumerate(_STAGES) if f"I: {words}" in lines]
        if not reached:
            continue
        stage = max(reached)
        title = _STAGES[stage][1]
        if title == "downloading packages":
            progress(title, _size(root / "var/cache/apt/archives"), 0, "bytes")
        elif stage != told:
            progress(title, stage, len(_STAGES), "stages")
        told = stage


def _size(folder: Path) -> int:
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass
    return total
