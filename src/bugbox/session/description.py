# SPDX-License-Identifier: Apache-2.0
"""A machine's description as JSON, so that another process can adopt the machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from bugbox.machine.spec import Drive, Kernel, MachineSpec, Nic

__all__ = ["from_json", "to_json"]


def to_json(spec: MachineSpec) -> dict[str, Any]:
    """Return plain lists, texts and numbers; a path becomes text."""
    plain = _plain(dataclasses.asdict(spec))
    assert isinstance(plain, dict)
    return plain


def from_json(raw: dict[str, Any]) -> MachineSpec:
    """Undo `to_json`."""
    kernel = raw["kernel"]
    return MachineSpec(
        id=raw["id"],
        kernel=Kernel(
            vmlinux=Path(kernel["vmlinux"]),
            initrd=Path(kernel["initrd"]) if kernel["initrd"] else None,
            release=kernel["release"],
            extra_args=tuple(kernel["extra_args"]),
        ),
        drives=tuple(_drive(each) for each in raw["drives"]),
        nics=tuple(_nic(each) for each in raw["nics"]),
        vcpus=raw["vcpus"],
        mem_mib=raw["mem_mib"],
        root=Path(raw["root"]),
        runtime=Path(raw["runtime"]),
        uid=raw["uid"],
        boot_timeout=raw["boot_timeout"],
    )


def _drive(raw: dict[str, Any]) -> Drive:
    backing = _drive(raw["backing"]) if raw["backing"] else None
    return Drive(**{**raw, "path": Path(raw["path"]), "backing": backing})


def _nic(raw: dict[str, Any]) -> Nic:
    reach = raw.get("reach")
    return Nic(**{**raw, "reach": None if reach is None else tuple(reach)})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
