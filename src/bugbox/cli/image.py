# SPDX-License-Identifier: Apache-2.0
"""bugbox image: the base images that puzzles start from."""

from __future__ import annotations

from typing import Any, Literal

from bugbox.cli.ask import ask, idle
from bugbox.cli.events import shown
from bugbox.cli.out import complain, document, printable, say, table
from bugbox.config import load
from bugbox.errors import NotFound, StateError
from bugbox.image import source, store
from bugbox.image.store import BuiltImage
from bugbox.paths import Home
from bugbox.storage.file import allocated

__all__ = ["build", "list_", "remove", "show"]


def build(
    name: str = "debian-12",
    /,
    *,
    init: Literal["systemd", "tini"] = "systemd",
    json: bool = False,
) -> int:
    """Build a base image, and the kernel and initramfs that go with it.

    With `--init tini` process 1 is a small init in place of systemd: the image NAME-tini.

    Args:
        name: Which one.
        init: What is process 1 in it.
        json: Print one JSON document.
    """
    home = Home()
    name = source.with_init(name, init)
    settings = load(home)
    home.prepare()
    with shown():
        kernel = store.ensure_kernel(home, settings)
        store.ensure_initrd(home, kernel)
        image = store.ensure_base(home, settings, name)
    if json:
        document(_facts(image))
    else:
        say(f"{image.name} {image.digest[:12]} is built: {image.size_bytes >> 20} MiB")
    return 0


def list_(*, json: bool = False) -> int:
    """Show the base images in the store.

    Args:
        json: Print one JSON document.
    """
    found = store.images(Home())
    if json:
        document([_facts(image) for image in found])
    elif found:
        table(
            ["NAME", "DIGEST", "ON DISK", "SIZE"],
            [
                [
                    i.name,
                    i.digest[:12],
                    f"{allocated(i.folder) >> 20} MiB",
                    f"{i.size_bytes >> 20} MiB",
                ]
                for i in found
            ],
        )
    else:
        complain("no base image is built yet: bugbox image build")
    return 0


def show(name: str = "debian-12", /, *, json: bool = False) -> int:
    """Show what is in a base image.

    Args:
        name: Its name, or the start of its digest.
        json: Print one JSON document.
    """
    image = _meant(name)
    facts = {**_facts(image), "packages": [*image.packages]}
    if json:
        document(facts)
        return 0
    for key in ("name", "digest", "folder", "size_bytes"):
        say(f"{key.replace('_', ' ')}: {printable(str(facts[key]))}")
    say(f"{len(image.packages)} packages:")
    for package in image.packages:
        say(f"  {printable(str(package))}")
    return 0


def remove(name: str, /) -> int:
    """Remove a base image; it can be built again.

    Args:
        name: Its name, or the start of its digest.
    """
    home = Home()
    image = _meant(name)
    used = [] if idle(home) else [row["id"] for row in ask("ps")]
    if used:
        raise StateError(
            f"sessions may stand on {image.name}: {', '.join(used)}", hint="bugbox stop --all"
        )
    store.remove_image(home, image.digest)
    say(f"{image.name} {image.digest[:12]} removed")
    return 0


def _meant(word: str) -> BuiltImage:
    found = store.images(Home())
    for image in reversed(found):  # the newest of that name
        if image.name == word or (word and image.digest.startswith(word)):
            return image
    names = sorted({image.name for image in found})
    raise NotFound(
        f"no base image {word} is built",
        hint=f"there is {', '.join(names)}" if names else "bugbox image build",
    )


def _facts(image: BuiltImage) -> dict[str, Any]:
    return {
        "name": image.name,
        "digest": image.digest,
        "folder": str(image.folder),
        "size_bytes": image.size_bytes,
    }
