# SPDX-License-Identifier: Apache-2.0
"""bugbox kernel: the kernels in the store, building one of our own, and racing them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from bugbox.cli.ask import ask
from bugbox.cli.boot import of_session
from bugbox.cli.events import shown
from bugbox.cli.out import complain, document, duration, say, table
from bugbox.cli.start import begin
from bugbox.config import load
from bugbox.errors import UserError
from bugbox.image import kconfig, store
from bugbox.image.store import BuiltKernel
from bugbox.paths import Home
from bugbox.session.race import Lap, summary

__all__ = ["build", "compare", "list_", "show"]

_MOST_ROUNDS = 100


def list_(*, json: bool = False) -> int:
    """Show the kernels in the store.

    Args:
        json: Print one JSON document.
    """
    found = store.kernels(Home())
    if json:
        document([_facts(kernel) for kernel in found])
    elif found:
        table(
            ["RELEASE", "FROM", "DIGEST"],
            [[k.release, _origin(k), k.digest[:12]] for k in found],
        )
    else:
        complain("no kernel is there yet: bugbox image build")
    return 0


def show(release: str | None = None, /, *, json: bool = False) -> int:
    """Show where a kernel and its parts lie.

    Args:
        release: Its release, its profile, or the start of its digest. Without it, the default.
        json: Print one JSON document.
    """
    home = Home()
    default = store.find_kernel(home)
    kernel = default if release is None and default else store.kernel_named(home, release or "")
    facts = _facts(kernel)
    if json:
        document(facts)
        return 0
    for key, value in facts.items():
        say(f"{key}: {value}")
    return 0


def build(*, profile: Literal["fast", "debug"] = "fast", json: bool = False) -> int:
    """Build a kernel of our own from Debian's source: no modules, only what a puzzle needs.

    Takes a quarter of an hour on two cores and 5 GB of disk while it works, 140 MB to download.
    What is built is kept; the same profile is not built again. Start it with `start --kernel fast`.

    Args:
        profile: fast boots quickly; debug adds what helps those who debug the kernel itself.
        json: Print one JSON document.
    """
    home = Home()
    settings = load(home)
    home.prepare()
    begun = time.monotonic()
    with shown():
        kernel = store.ensure_own_kernel(home, settings, profile)
        store.ensure_initrd(home, kernel)
    if json:
        document(_facts(kernel))
    else:
        took = duration(time.monotonic() - begun)
        say(f"{kernel.release} {kernel.digest[:12]} is there after {took}")
        say(f"  bugbox start --image debian-12 --kernel {kernel.profile}")
    return 0


def compare(*kernels: str, rounds: int = 5, image: str = "debian-12", json: bool = False) -> int:
    """Boot each kernel in turn, again and again, and say how long each takes.

    Turns are interleaved, so that a busy host slows all of them alike. The first one named is what
    the others are measured by.

    Args:
        kernels: Kernels of the store. Without any: all of them, the default first.
        rounds: How often each is booted.
        image: The base image they boot.
        json: Print one JSON document.
    """
    home = Home()
    if not 1 <= rounds <= _MOST_ROUNDS:
        raise UserError(f"--rounds: 1 to {_MOST_ROUNDS}")
    chosen = [store.kernel_named(home, word) for word in kernels] or _all(home)
    if len({kernel.digest for kernel in chosen}) < 2:
        raise UserError("two kernels or more are needed", hint="bugbox kernel build makes one")
    laps: dict[str, list[Lap]] = {kernel.release: [] for kernel in chosen}
    for number in range(rounds):
        for kernel in chosen:
            complain(f"round {number + 1} of {rounds}: {kernel.release}")
            laps[kernel.release].append(_lap(image, kernel))
    rows = summary(laps)
    facts = {kernel.release: _size_facts(kernel) for kernel in chosen}
    if json:
        document({"rounds": rounds, "kernels": [row | facts[row["name"]] for row in rows]})
        return 0
    head = ["KERNEL", "ENTRY TO /init", "TO THE ROOT'S INIT", "TO READY", "OF THE FIRST", "VMLINUX"]
    table(head, [_row(row, facts[row["name"]]) for row in rows])
    return 0


def _all(home: Home) -> list[BuiltKernel]:
    default = store.find_kernel(home)
    others = [k for k in store.kernels(home) if default is None or k.digest != default.digest]
    return [*([default] if default else []), *others]


def _lap(image: str, kernel: BuiltKernel) -> Lap:
    """Boot once; where the time went, from the log's own clock."""
    answer = begin({"image": image, "kernel": kernel.release, "cold": True, "warm": False})
    try:
        timeline = of_session(answer["id"]).timeline
    finally:
        ask("stop", {"ids": [answer["id"]]})
    phases = {phase.name: phase for phase in timeline.phases}
    return Lap(
        kernel=phases["kernel"].end,
        init=phases["init"].start,
        ready=answer["timings_ms"]["total"] / 1000,
    )


def _row(row: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    def shown(key: str) -> str:
        return f"{row[key]['p50'] * 1000:.0f} ms ±{row[key]['noise'] * 1000:.0f}"

    ratio = f"{row['kernel']['ratio']:.2f}x / {row['ready']['ratio']:.2f}x"
    size = f"{facts['vmlinux_bytes'] / (1 << 20):.0f} MiB, {facts['options']} options"
    return [row["name"], shown("kernel"), shown("init"), shown("ready"), ratio, size]


def _size_facts(kernel: BuiltKernel) -> dict[str, Any]:
    path = kernel.folder / "config"
    config = kconfig.parse_config(path.read_text()) if path.exists() else {}
    return {
        "vmlinux_bytes": kernel.vmlinux.stat().st_size,
        "options": sum(value in ("y", "m") for value in config.values()),
    }


def _origin(kernel: BuiltKernel) -> str:
    return f"our profile {kernel.profile}" if kernel.profile else "Debian"


def _facts(kernel: BuiltKernel) -> dict[str, Any]:
    return {
        "release": kernel.release,
        "profile": kernel.profile or None,
        "digest": kernel.digest,
        "folder": str(kernel.folder),
        "vmlinux": str(kernel.vmlinux),
        "config": str(Path(kernel.folder) / "config"),
        "modules": str(kernel.modules),
    }
