# SPDX-License-Identifier: Apache-2.0
"""bugbox layer: what it says of a layer's file, what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest

from bugbox.cli import layer as cli
from bugbox.errors import NotBuilt, StateError, UserError
from bugbox.image import store
from bugbox.image.rootfs import BuiltImage
from bugbox.paths import Home
from bugbox.session.layer import head_of
from bugbox.storage import layer_file
from bugbox.storage.archive import ArchiveError
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry

BASE = "b" * 64
IMAGE = BuiltImage(
    digest=BASE,
    recipe="r",
    name="debian-12",
    folder=Path(),
    size_bytes=1 << 30,
    packages=(),
    kernel_release="6.1",
    sha256="s",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "find_base", lambda *_: IMAGE)


@pytest.fixture
def layer(home: Path, tmp_path: Path) -> Path:
    tar = tmp_path / "layer.tar"
    with tar.open("wb") as out:
        written = TarWriter(out)
        for entry in (folder_entry("."), folder_entry("etc"), file_entry("etc/.wh.motd", 0)):
            written.add(entry)
        acls = {"access": b"user::rw-\ngroup::r--\nother::r--\n"}
        written.add(dataclasses.replace(file_entry("etc/\x1b[2J", 3), acls=acls), [b"abc"])
        written.close()
    head = head_of(
        tar,
        name="demo",
        version="1.0",
        inputs="i" * 64,
        base="debian-12",
        base_digest=BASE,
        disk_bytes=2 << 30,
    )
    layer_file.write(tar, tmp_path / "demo.tar.zst", head)
    tar.unlink()
    return tmp_path / "demo.tar.zst"


def test_show_tells_everything_and_safely(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.show(str(layer)) == 0
    said = capsys.readouterr().out
    assert "puzzle: demo" in said and "members: 4" in said
    assert "deleted: /etc/motd\n" in said
    assert "-rw-r--r--+       0:0          3 /etc/\\x1b[2J\n" in said
    assert cli.show(str(layer), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["base_digest"] == BASE
    assert told["entries"][2] == told["entries"][2] | {
        "name": "etc/.wh.motd",
        "deletes": "etc/motd",
    }


@pytest.mark.usefixtures("base")
def test_verify_says_good(layer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.verify(str(layer)) == 0
    assert capsys.readouterr().out.startswith("good: 4 members, tar sha256:")


@pytest.mark.usefixtures("base")
def test_a_layer_of_another_base_is_refused_with_how_to_build_it_again(
    layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dataclasses.replace(IMAGE, digest="c" * 64)
    monkeypatch.setattr(store, "find_base", lambda *_: image)
    with pytest.raises(StateError, match="made on debian-12 bbbbbbbbbbbb") as caught:
        cli.verify(str(layer))
    assert caught.value.hint == "build it again from the puzzle: bugbox build demo"


def test_without_a_base_here_it_says_how_to_get_one(layer: Path) -> None:
    with pytest.raises(NotBuilt) as caught:
        cli.verify(str(layer))
    assert caught.value.hint == "bugbox image build debian-12"


def test_a_puzzle_that_is_not_built_says_so(home: Path) -> None:
    with pytest.raises(NotBuilt) as caught:
        cli.show("read-me")
    assert caught.value.hint == "bugbox build read-me"


@pytest.mark.usefixtures("base")
def test_export_writes_three_forms(
    layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.export(str(layer), output=Path("copy")) == 0
    assert Path("copy").read_bytes() == layer.read_bytes()
    assert cli.export(str(layer), output=Path("x.tar"), form="tar") == 0
    assert b"SCHILY.xattr.system.posix_acl_access=" in Path("x.tar").read_bytes()
    capsys.readouterr()
    assert cli.export(str(layer), output=Path("image"), form="oci", json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path("image/blobs/sha256", told["sha256"]).is_file()

    # And back: what the image says of its origin is kept, but not that nobody changed it.
    assert cli.show("image", json=True) == 0
    back = json.loads(capsys.readouterr().out)
    assert cli.show(str(layer), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert back.pop("inputs") == "" and told.pop("inputs") == "i" * 64
    assert back == told
    assert cli.verify("image:demo") == 0


def test_nothing_is_overwritten_and_nothing_half_left(
    layer: Path, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="is there already"):
        cli.export(str(layer), output=layer)
    with pytest.raises(UserError, match="no such folder"):
        cli.export(str(layer), output=Path("nowhere/x"))
    layer.write_bytes(layer.read_bytes()[:-30])
    with pytest.raises(ArchiveError):
        cli.export(str(layer), output=Path("x"))
    assert not Path("x").exists()
    shutil.rmtree(home, ignore_errors=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["demo.tar.zst"]


@pytest.mark.usefixtures("home")
def test_an_image_that_lies_about_its_origin_is_refused(tmp_path: Path) -> None:
    from bugbox.session import artefact
    from bugbox.storage import oci

    for n, said in enumerate(("[]", "{", '{"puzzle": 1}')):
        layout = tmp_path / f"image{n}"
        layout.mkdir()
        out = io.BytesIO()
        TarWriter(out).close()
        out.seek(0)
        oci.write_layout(out, layout, name="x", annotations={oci.HEAD: said})
        with (
            pytest.raises(ArchiveError, match=oci.HEAD),
            artefact.from_image(Home(), str(layout), IMAGE, 1),
        ):
            pass
