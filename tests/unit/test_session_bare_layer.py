# SPDX-License-Identifier: Apache-2.0
"""A bare machine that starts with a layer of the store, also after a reset and an adoption."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from session_world import World, run, world

from bugbox.errors import NotBuilt
from bugbox.session import manager as manager_module
from bugbox.session.manager import Manager
from bugbox.storage.disk import create_overlay

KEY = "a" * 64


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        disk = tmp_path / "layer.qcow2"
        create_overlay(disk, backing=made.parts.image.rootfs, backing_format="raw")
        layer = SimpleNamespace(key=KEY, disk=disk, tar=disk)
        known = {KEY: layer}
        monkeypatch.setattr(manager_module, "load_layer", lambda home, key: known.get(key))
        yield made


def layers(manager: Manager, id: str) -> list[str]:
    session = manager._attempts[id].session
    assert session.machine is not None
    drive, found = session.machine.spec.drives[0], []
    while drive.backing is not None:
        drive = drive.backing
        found.append(drive.id)
    return found


def test_a_bare_machine_with_a_layer(made: World) -> None:
    async def work() -> None:
        async with Manager(made.home, made.settings) as manager:
            args = {"image": "debian-12", "layer": KEY}
            id = str((await manager.answer("start", args))["id"])
            assert layers(manager, id) == ["layer", "base"]
            with pytest.raises(NotBuilt):
                await manager.answer("start", {"image": "debian-12", "layer": "b" * 64})
        async with Manager(made.home, made.settings) as manager:
            await manager.adopt_all()
            await manager.answer("reset", {"id": id})
            assert layers(manager, id) == ["layer", "base"]
            await manager.answer("stop", {"all": True})

    run(work)
