# SPDX-License-Identifier: Apache-2.0
"""What a manifest says of the layer without a script, as a script: names, mounts, units, a shell.

It is put where the puzzle's own build.sh was, and runs that in the middle; so both builders honour
it, and it is in the layer's key like everything else that reaches them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from bugbox.puzzle.manifest import Manifest
from bugbox.puzzle.units import SERVICES

__all__ = ["OWN", "asks", "wrapper"]

#: Where the puzzle's own build.sh lies when there is a wrapper.
OWN = "own-build.sh"

_SUDOERS = "/etc/sudoers.d/learner-commands"
#: What means something in a sudoers file.
_MEANS = re.compile(r"[,:=]")


def asks(wishes: Manifest) -> bool:
    """Whether the manifest alone changes something in the layer."""
    return bool(_before(wishes) or _after(wishes))


def wrapper(wishes: Manifest, *, own: bool) -> bytes:
    """Return the script that does what the manifest asks for; `own`: there is a build.sh, too."""
    lines = [
        "#!/bin/sh",
        "# Made from puzzle.yaml: what it asks for beside the puzzle's own build.sh.",
        "set -eu",
        *_before(wishes),
        *([f"./{OWN}"] if own else []),
        *_after(wishes),
    ]
    return "\n".join(lines).encode() + b"\n"


def _before(wishes: Manifest) -> list[str]:
    return [*_hosts(wishes), *_mounts(wishes), *_units(wishes)]


def _after(wishes: Manifest) -> list[str]:
    """What needs the learner's account, which build.sh may make."""
    user = wishes.user
    lines = []
    if user.shell is not None:
        lines.append(f"usermod --shell {shlex.quote(user.shell)} {shlex.quote(user.name)}")
    if user.sudo != "full":
        lines.append("rm -f /etc/sudoers.d/learner")
        lines.append(f"gpasswd --delete {shlex.quote(user.name)} sudo || true")
    if user.sudo == "limited":
        commands = ", ".join(_MEANS.sub(r"\\\g<0>", command) for command in user.commands)
        entry = f"{user.name} ALL=(root) NOPASSWD: {commands}"
        lines.append(f"printf '%s\\n' {shlex.quote(entry)} >{_SUDOERS}")
        lines.append(f"chmod 0440 {_SUDOERS}")
        lines.append(f"visudo --check --quiet --file={_SUDOERS}")
    return lines


def _hosts(wishes: Manifest) -> Iterator[str]:
    for name, address in wishes.network.hosts.items():
        yield f"echo {shlex.quote(f'{address} {name}')} >>/etc/hosts"


def _mounts(wishes: Manifest) -> Iterator[str]:
    for disk in wishes.machine.disks:
        if disk.mount is not None:
            entry = f"LABEL={disk.name} {disk.mount} {disk.fs} defaults 0 0"
            yield f"mkdir -p {shlex.quote(disk.mount)}"
            yield f"echo {shlex.quote(entry)} >>/etc/fstab"


def _units(wishes: Manifest) -> Iterator[str]:
    for name in wishes.boot.units:
        for unit in SERVICES[name]:
            # What others pull in was masked, what starts by itself was disabled: undo both.
            yield f"systemctl --quiet unmask {shlex.quote(unit)}"
            yield f"systemctl --quiet enable {shlex.quote(unit)}"
