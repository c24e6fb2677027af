# SPDX-License-Identifier: Apache-2.0
"""bugbox start: a machine for a puzzle, running when the command ends. Thin."""

from __future__ import annotations

from os import sysconf
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, monotonic
from typing import Any, Literal

from bugbox.cli.ask import ask, puzzle_ref
from bugbox.cli.out import document, duration, paint, say
from bugbox.errors import NotBuilt, UserError
from bugbox.paths import shipped_puzzles

__all__ = ["begin", "start"]


def start(
    name: str | None = None,
    /,
    *,
    image: str | None = None,
    layer: str | None = None,
    cold: bool = False,
    driver: Literal["auto", "qemu", "firecracker"] = "auto",
    disk: Literal["auto", "qcow2", "snapshot", "copy", "overlay"] = "auto",
    seed: int | None = None,
    kernel: str | None = None,
    no_build: bool = False,
    no_keeper: bool = False,
    trace: str | None = None,
    json: bool = False,
) -> int:
    """Boot a puzzle's machine and leave it running.

    What is missing (kernel, base image, the puzzle's layer) is built first.

    Args:
        name: The puzzle: a name of the catalogue, a folder or a packed file. Without it, the folder
            you stand in.
        image: Boot a bare machine of this base image, without a puzzle.
        layer: With --image: a layer's file that the bare machine starts with.
        cold: Boot from the start, also where a ready machine could be cloned.
        driver: What runs the machine.
        disk: How the session's disk lies over the puzzle's.
        seed: Choose the puzzle's variants by this number.
        kernel: Boot this kernel of the store: a release, a profile, or the start of a digest.
        no_build: Fail when something would have to be built first.
        no_keeper: Do it in this process, without the keeper.
        trace: Write a picture (SVG) of where this start's time went to this file.
        json: Print one JSON document.
    """
    if image is not None and name is not None:
        raise UserError("a puzzle or --image, not both")
    if layer is not None and image is None:
        raise UserError("--layer goes with --image", hint="--image debian-12")
    args: dict[str, Any] = {"cold": cold, "driver": driver, "disk": disk}
    args.update({"image": image} if image is not None else {"puzzle": puzzle_ref(name)})
    if layer is not None:
        from bugbox.cli import prepare  # loads the large libraries

        args["layer"] = prepare.store_layer(str(image), Path(layer))
    if seed is not None:
        args["seed"] = seed
    if kernel is not None:
        args["kernel"] = kernel
    if trace is not None:
        args["trace"] = True
    asked = monotonic()
    answer = begin(args, no_build=no_build, alone=no_keeper)
    if trace is not None:
        _draw(trace, answer, asked)
    if json:
        document(answer)
        return 0
    seconds = float(answer.get("timings_ms", {}).get("total", 0)) / 1000
    say(f"{paint(answer['id'], 'bold')} is {answer['state']} after {duration(seconds)}")
    say(f"  bugbox shell {answer['id']}")
    return 0


def _draw(path: str, answer: dict[str, Any], asked: float) -> None:
    from bugbox.boottime.trace import draw  # only where a picture is wanted

    ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    # Of the clock that counts from the host's boot, also while it slept.
    slept = clock_gettime(CLOCK_BOOTTIME) - monotonic()
    begun = ticks / sysconf("SC_CLK_TCK") - slept
    spans = [
        *answer.pop("trace"),
        {"name": "command: until it asks", "begin": begun, "end": asked},
        {"name": "keeper: until it answered", "begin": asked, "end": monotonic()},
    ]
    kind = "clone" if answer["clone"] else "boot"
    Path(path).write_text(draw(f"{answer['id']}, a {kind}", spans))


def begin(args: dict[str, Any], *, no_build: bool = False, alone: bool = False) -> dict[str, Any]:
    """Start a session; build what is missing, in this process, and ask again."""
    try:
        answer: dict[str, Any] = ask("start", args, alone=alone)
    except NotBuilt as missing:
        if no_build:
            missing.hint = f"{_maker(args)} makes it; or leave --no-build out"
            raise
        from bugbox.cli import prepare  # loads the large libraries: only for a first start

        prepare.ensure(args.get("puzzle"), args.get("image"), args.get("kernel", ""))
        answer = ask("start", args, alone=alone)
    return answer


def _maker(args: dict[str, Any]) -> str:
    if args.get("image"):
        return f"bugbox image build {args['image']}"
    folder = str(args["puzzle"])
    return f"bugbox build {folder.removeprefix(f'{shipped_puzzles()}/')}"
