# SPDX-License-Identifier: Apache-2.0
"""What must be built before a session can start: kernel, initramfs, base image, the puzzle's layer.

`find` looks and never builds: the keeper uses it. `ensure` builds: a command does so in its own
process, where Ctrl-C reaches the builder as the signal it is. Both take a puzzle, or the name of
a base image for a bare machine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import anyio

from bugbox.config import Settings
from bugbox.errors import HostError, NotFound, UserError
from bugbox.image import store
from bugbox.image.store import BuiltImage, BuiltKernel, Estimate
from bugbox.paths import Home
from bugbox.puzzle.definition import Puzzle
from bugbox.session.builder import BuiltLayer, Parts, ensure_layer, find_layer
from bugbox.session.container import built_in_container
from bugbox.session.drivers import BUILDER, choose

__all__ = ["Builder", "Prepared", "ensure", "estimate", "find", "layer_parts"]

Builder = Literal["vm", "docker"]
Run = Callable[[Callable[[], Awaitable[BuiltLayer]]], BuiltLayer]

_LAYER = Estimate(what="the puzzle's layer", download_bytes=0, disk_bytes=64 << 20, seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that sessions of one puzzle share."""

    kernel: BuiltKernel
    initrd: Path
    image: BuiltImage
    #: None for a bare machine.
    layer: BuiltLayer | None


def find(home: Home, settings: Settings, wanted: Puzzle | str, booted: str = "") -> Prepared | None:
    """Return what is built, or None when anything is missing. Quick; builds nothing.

    `booted` names the kernel to boot, when it is not the one that images are built with.
    """
    kernel = store.find_kernel(home)
    initrd = store.find_initrd(home, kernel) if kernel else None
    image = store.find_base(home, _base(wanted))
    if kernel is None or initrd is None or image is None:
        return None
    _check_pin(wanted, image)
    layer = None
    if isinstance(wanted, Puzzle):
        layer = find_layer(home, wanted, image)
        if layer is None:
            return None
    if booted or _asked(wanted):
        kernel = _kernel(home, wanted, booted)
        initrd = store.find_initrd(home, kernel)
        if initrd is None:
            return None
    return Prepared(kernel=kernel, initrd=initrd, image=image, layer=layer)


def ensure(
    home: Home,
    settings: Settings,
    wanted: Puzzle | str,
    run: Run = anyio.run,
    booted: str = "",
    builder: Builder = "vm",
) -> Prepared:
    """Build whatever is missing; two processes that want the same thing build it once.

    `run` runs the asynchronous half, as anyio.run does: a command brings one that knows Ctrl-C.
    """
    home.prepare()
    kernel = store.ensure_kernel(home, settings)
    initrd = store.ensure_initrd(home, kernel)
    image = store.ensure_base(home, settings, _base(wanted))
    _check_pin(wanted, image)
    layer = None
    if isinstance(wanted, Puzzle):
        puzzle, driver = wanted, choose(home, settings, BUILDER)
        with ExitStack() as stack:
            given = None
            if builder == "docker" and puzzle.builds and find_layer(home, puzzle, image) is None:
                factor = settings.timeout_factor
                given = stack.enter_context(built_in_container(home, puzzle, image, factor=factor))
            layer = run(
                lambda: ensure_layer(home, settings, puzzle, image, kernel, initrd, driver, given)
            )
    made = Prepared(kernel=kernel, initrd=initrd, image=image, layer=layer)
    if not (booted or _asked(wanted)):
        return made
    own = _kernel(home, wanted, booted)
    return replace(made, kernel=own, initrd=store.ensure_initrd(home, own))


def layer_parts(home: Home, settings: Settings, base: str) -> Parts:
    """Return what a machine that makes disks over `base` is built with; build what is missing."""
    parts = ensure(home, settings, base)
    return Parts(
        home=home,
        settings=settings,
        image=parts.image,
        kernel=parts.kernel,
        initrd=parts.initrd,
        driver=choose(home, settings, BUILDER),
    )


def estimate(home: Home, settings: Settings, wanted: Puzzle | str) -> list[Estimate]:
    """Return what is missing, and about what each part takes. Empty: nothing is."""
    missing = store.estimate(home, _base(wanted))
    if isinstance(wanted, Puzzle):
        image = store.find_base(home, wanted.base)
        if image is None or find_layer(home, wanted, image) is None:
            missing.append(_LAYER)
    return missing


def _base(wanted: Puzzle | str) -> str:
    return wanted.base if isinstance(wanted, Puzzle) else wanted


def _asked(wanted: Puzzle | str) -> str:
    """The kernel that a puzzle names; empty: none."""
    return (wanted.manifest.kernel or "") if isinstance(wanted, Puzzle) else ""


def _kernel(home: Home, wanted: Puzzle | str, booted: str) -> BuiltKernel:
    """Return what is booted: what somebody asked for now, else what the puzzle names."""
    if booted:
        return store.kernel_named(home, booted)
    try:
        return store.kernel_named(home, _asked(wanted))
    except NotFound as error:
        name = wanted.name if isinstance(wanted, Puzzle) else wanted
        raise HostError(
            f"{name} wants kernel {_asked(wanted)}: {error.message}", hint=error.hint
        ) from None


def _check_pin(wanted: Puzzle | str, image: BuiltImage) -> None:
    if not isinstance(wanted, Puzzle) or wanted.base_digest is None:
        return
    if not image.digest.startswith(wanted.base_digest.removeprefix("sha256:")):
        raise UserError(
            f"{wanted.name} wants {wanted.base}@{wanted.base_digest}, "
            f"and {image.name} here is sha256:{image.digest}",
            hint="take the digest out of `base`, or build with the recipe that makes it",
        )
