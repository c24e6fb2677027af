# SPDX-License-Identifier: Apache-2.0
"""Layers of disks: size, backing file, and that nothing half-made stays."""

import json
import shutil
import subprocess

import pytest

from bugbox.errors import CommandFailed, HostError, OutOfResources
from bugbox.storage.disk import check_free, create_empty, create_overlay, virtual_size

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="no qemu-img on this host")


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.ext4"
    path.write_bytes(b"data" * 1024)
    with path.open("r+b") as file:
        file.truncate(64 << 20)
    return path


def info(path):
    shown = subprocess.run(
        ["qemu-img", "info", "--output=json", path], capture_output=True, check=True
    )
    return json.loads(shown.stdout)


def test_an_overlay_is_as_large_as_what_is_under_it(base, tmp_path):
    create_overlay(tmp_path / "a.qcow2", backing=base, backing_format="raw")
    shown = info(tmp_path / "a.qcow2")
    assert shown["virtual-size"] == 64 << 20
    assert shown["backing-filename"] == str(base)
    assert shown["backing-filename-format"] == "raw"
    assert shown["actual-size"] < 1 << 20


def test_an_overlay_can_be_larger_and_never_smaller(base, tmp_path):
    layer, session = tmp_path / "layer.qcow2", tmp_path / "session.qcow2"
    create_overlay(layer, backing=base, backing_format="raw", size_bytes=1 << 20)
    assert virtual_size(layer) == 64 << 20
    create_overlay(session, backing=layer, backing_format="qcow2", size_bytes=(2 << 30) + 1)
    assert virtual_size(session) == (2 << 30) + 4096


def test_an_empty_disk(tmp_path):
    create_empty(tmp_path / "e.qcow2", size_bytes=1 << 30)
    assert virtual_size(tmp_path / "e.qcow2") == 1 << 30
    assert "backing-filename" not in info(tmp_path / "e.qcow2")


def test_a_disk_is_never_overwritten(base, tmp_path):
    with pytest.raises(HostError, match="there already"):
        create_overlay(base, backing=base, backing_format="raw")
    with pytest.raises(HostError, match="there already"):
        create_empty(base, size_bytes=1)
    assert base.stat().st_size == 64 << 20


def test_a_missing_backing_file_leaves_nothing(tmp_path):
    with pytest.raises((CommandFailed, FileNotFoundError)):
        create_overlay(tmp_path / "a.qcow2", backing=tmp_path / "none", backing_format="qcow2")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(tmp_path):
    check_free(tmp_path / "new.qcow2")
    with pytest.raises(OutOfResources):
        check_free(tmp_path / "new.qcow2", 1 << 60)
