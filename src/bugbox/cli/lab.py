# SPDX-License-Identifier: Apache-2.0
"""bugbox lab: a machine that is a host, for what needs root, KVM or device mapper."""

from __future__ import annotations

import sys
from pathlib import Path

from bugbox.cli.ask import ask
from bugbox.cli.events import shown
from bugbox.cli.loop import run_async
from bugbox.cli.out import complain, document
from bugbox.cli.shell import run_command, shell
from bugbox.config import load
from bugbox.errors import GuestError
from bugbox.paths import Home
from bugbox.puzzle.catalogue import find, roots
from bugbox.session import lab as labs
from bugbox.session import prepare

__all__ = ["lab"]


def lab(
    *,
    play: tuple[str, ...] = (),
    memory: int = labs.MEM_MIB,
    keep: bool = False,
    json: bool = False,
    argv: list[str] | None = None,
) -> int:
    """Boot a host in a machine, for this very bugbox, and give you a root shell there.

    It has QEMU, /dev/kvm where the emulated CPU brings it, device mapper, loop devices and
    nftables, and this checkout with its virtual environment at the same path. With `-- CMD` it runs
    that, and the command's status is ours. Afterwards it is thrown away.

    Args:
        play: A puzzle to carry along, built; may be given several times.
        memory: How much memory it has, in MiB.
        keep: Leave it running: `bugbox shell` goes in again, `bugbox stop` ends it.
        json: With --keep and without a command, print one JSON document.
    """
    home = Home()
    home.prepare()
    args = {"lab": {"mem_mib": memory, "carried": _carried(home, play)}}
    id = str(ask("start", args)["id"])
    try:
        script = ["sh", "-c", labs.mount_script()]
        if run_command({"id": id, "root": True, "argv": script}) != 0:
            raise GuestError(f"{id}: the carried disks could not be mounted")
        if keep and argv is None and (json or not sys.stdin.isatty()):
            if json:
                document({"id": id})
            return 0
        return _inside(id, argv)
    finally:
        if keep:
            complain(f"{id} runs on: bugbox shell {id} --root goes back, bugbox stop {id} ends it")
        else:
            ask("stop", {"ids": [id]})


def _carried(home: Home, play: tuple[str, ...]) -> list[tuple[str, str]]:
    settings = load(home)
    with shown():
        layers = []
        for name in play:
            puzzle = find(name, roots(settings.puzzles), Path.cwd())
            built = prepare.ensure(home, settings, puzzle, run_async)
            assert built.layer is not None
            layers.append(built.layer)
        parts = prepare.ensure(home, settings, labs.NAME)
        return [(name, str(path)) for name, path in labs.carry(home, settings, parts, layers)]


def _inside(id: str, argv: list[str] | None) -> int:
    """Stand where the command stood on the host, with its programs on PATH."""
    place = ["env", f"--chdir={Path.cwd() if labs.carries(Path.cwd()) else '/root'}"]
    place.append(
        f"PATH={sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    )
    if argv is None and sys.stdin.isatty():
        return shell(id, root=True, tty=True, argv=[*place, "bash", "-i"])
    return run_command({"id": id, "root": True, "argv": [*place, *(argv or ["bash"])]})
