# SPDX-License-Identifier: Apache-2.0
"""Device mapper: a snapshot over loop devices. A real block device, so for Firecracker too.

    TAG-disk     snapshot: what the session wrote is in disk.store, all else comes from
    TAG-below    linear pieces: the layer's runs where it has some, the base elsewhere, then zeros

Base and layer are each on one read-only loop device, however many sessions lie over them. All
loop devices go by themselves when the mapper lets go of them.

A snapshot whose store fills up is given up by the kernel, with all that was written. So the store
is large enough for every block to be written once, and sparse: what can run out is the host's disk.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bugbox.errors import HostError, MissingPrivilege
from bugbox.storage import file, loop, mapper
from bugbox.storage.disk import check_free, virtual_size
from bugbox.storage.disks.layout import Layout, Part, Place, Source
from bugbox.storage.extents import runs_of

__all__ = ["Snapshot", "below"]

_STORE = "disk.store"
#: What the devices are made from, so that they can be made again.
_RECIPE = "disk.json"


class Snapshot:
    """A dm-snapshot over shared loop devices."""

    name = "snapshot"
    raw = True

    def require(self, folder: Path) -> None:
        """Need root, loop devices and the device mapper."""
        if os.geteuid() != 0:
            raise MissingPrivilege(
                "device mapper snapshots are for root", hint="run it as root, or use --disk qcow2"
            )
        if not loop.CONTROL.exists():
            raise HostError("no loop devices here", hint="as root: modprobe loop")
        mapper.require()

    def layout(self, source: Source, place: Place) -> Layout:
        """One block device."""
        path = mapper.node(f"{place.tag}-disk")
        return Layout(parts=(Part(id="root", path=path, format="raw", device=True),))

    def make(self, source: Source, place: Place) -> None:
        """Write an empty store and put the devices over it."""
        self.give_back(place)
        check_free(place.folder)
        size = max(source.size_bytes, source.base.stat().st_size)
        if source.layer:
            size = max(size, virtual_size(source.layer))
            runs_of(source.layer)
        size = -(-size // 4096) * 4096
        store = place.folder / _STORE
        store.unlink(missing_ok=True)
        with store.open("xb") as made:
            os.fchmod(made.fileno(), 0o600)
            made.truncate(mapper.store_bytes(size))
        recipe = {
            "base": str(source.base),
            "layer": str(source.layer) if source.layer else None,
            "size_bytes": size,
        }
        file.write(place.folder / _RECIPE, json.dumps(recipe).encode(), mode=0o600)
        self.bring_back(place)

    def bring_back(self, place: Place) -> None:
        """Put the devices over the store that is there; nothing happens when they are there."""
        if mapper.names(f"{place.tag}-disk"):
            return
        recipe = json.loads((place.folder / _RECIPE).read_bytes())
        sectors = recipe["size_bytes"] // mapper.SECTOR
        with ExitStack() as held:
            base = held.enter_context(contextlib.closing(loop.share(Path(recipe["base"]))))
            layer: loop.Loop | None = None
            runs: tuple[tuple[int, int], ...] = ()
            if recipe["layer"]:
                found = runs_of(Path(recipe["layer"]))
                layer = held.enter_context(contextlib.closing(loop.share(found.raw)))
                runs = found.runs
            targets = below(
                recipe["size_bytes"],
                (base.path, base.size_bytes),
                (layer.path, runs) if layer else None,
            )
            under = mapper.create(f"{place.tag}-below", targets, read_only=True)
            try:
                store = held.enter_context(
                    contextlib.closing(loop.attach(place.folder / _STORE, read_only=False))
                )
                sectors = recipe["size_bytes"] // mapper.SECTOR
                over = mapper.snapshot(sectors, under, store.path)
                mapper.create(f"{place.tag}-disk", [over])
            except BaseException:
                mapper.remove(f"{place.tag}-below")
                raise

    def give_back(self, place: Place) -> None:
        """Remove the devices, the upper one first; the loop devices go with them."""
        for name in mapper.names(f"{place.tag}-"):
            mapper.remove(name)
        with contextlib.suppress(FileNotFoundError):
            loop.release(place.folder / _STORE)


def below(
    size_bytes: int,
    base: tuple[Path, int],
    layer: tuple[Path, Sequence[tuple[int, int]]] | None,
) -> list[mapper.Target]:
    """Return the table of the lower device: the layer's runs, the base between them, then zeros.

    `base` is a device and its size in bytes, `layer` a device and its runs; all multiples of 512.
    """
    targets: list[mapper.Target] = []
    device, base_bytes = base

    def fill(start: int, end: int) -> None:
        real = max(start, min(end, base_bytes))
        if real > start:
            targets.append(mapper.linear((real - start) >> 9, device, start >> 9))
        if end > real:
            targets.append(mapper.zero((end - real) >> 9))

    at = 0
    for start, length in layer[1] if layer else ():
        end = min(start + length, size_bytes)
        if end <= start:
            break
        fill(at, start)
        assert layer
        targets.append(mapper.linear((end - start) >> 9, layer[0], start >> 9))
        at = end
    fill(at, size_bytes)
    return targets
