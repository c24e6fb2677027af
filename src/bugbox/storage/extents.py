# SPDX-License-Identifier: Apache-2.0
"""A layer's qcow2 as runs of plain bytes: what it says of the disk, nothing of what is under it.

Device mapper and reflinks know no qcow2. `layer.raw`, beside the layer, is as large as the disk and
all hole but for the blocks that the layer has; `layer.runs.json` says which these are. A block that
the layer made zero is one of them. Both are made once, by whoever needs them first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bugbox.errors import HostError
from bugbox.host import proc
from bugbox.storage import file

__all__ = ["Runs", "parse_map", "runs_of"]

_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True)
class Runs:
    """The plain file, and (start, length) in bytes of each run, in order, never touching."""

    raw: Path
    size_bytes: int
    runs: tuple[tuple[int, int], ...]


def runs_of(layer: Path) -> Runs:
    """Return the layer's runs; unpack them when that was not done before."""
    raw, index = layer.with_name("layer.raw"), layer.with_name("layer.runs.json")
    with file.locked(layer.with_name(".runs.lock")):
        if not index.exists():
            _unpack(layer, raw, index)
    values = json.loads(index.read_bytes())
    return Runs(raw, values["size_bytes"], tuple((a, b) for a, b in values["runs"]))


def parse_map(text: str) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return size and runs out of what `qemu-img map --output=json` says of a qcow2 alone."""
    end = 0
    runs: list[tuple[int, int]] = []
    for entry in json.loads(text):
        start, length = int(entry["start"]), int(entry["length"])
        if start != end or length <= 0:
            raise HostError("qemu-img map leaves gaps")
        end = start + length
        # A block that is not there is the base's; one that is there may be all zeros.
        if not entry["present"]:
            continue
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    return end, tuple(runs)


def _unpack(layer: Path, raw: Path, index: Path) -> None:
    alone = "json:" + json.dumps(
        {"driver": "qcow2", "file": {"driver": "file", "filename": str(layer)}, "backing": None}
    )
    told = proc.run(["qemu-img", "map", "--output=json", alone], timeout=_TIMEOUT)
    size, runs = parse_map(told.stdout.decode())
    fresh = raw.with_name(f"{raw.name}.new")
    try:
        proc.run(["qemu-img", "convert", "-O", "raw", alone, fresh], timeout=_TIMEOUT)
        fresh.chmod(0o444)
        fresh.rename(raw)
    finally:
        fresh.unlink(missing_ok=True)
    file.write(index, json.dumps({"size_bytes": size, "runs": runs}).encode())
