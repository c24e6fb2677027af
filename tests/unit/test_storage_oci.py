# SPDX-License-Identifier: Apache-2.0
"""A layer goes to an OCI image and comes back the same; skopeo and umoci agree that it is one."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bugbox.host import proc
from bugbox.storage import oci
from bugbox.storage.archive import ArchiveError, Entry, members
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry


def _link(name: str, target: str) -> Entry:
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, uid=0, gid=0, mtime_ns=0, target=target)


LIST = b"user::rw-\nuser:1000:---\ngroup::r--\nmask::r--\nother::r--\n"
MEMBERS: list[tuple[Entry, bytes]] = [
    (folder_entry("."), b""),
    (folder_entry("etc"), b""),
    (file_entry("etc/.wh.motd", 0), b""),
    (folder_entry("etc/skel"), b""),
    (file_entry("etc/skel/.wh..wh..opq", 0), b""),
    (file_entry("etc/skel/only", 4, when=981_173_106), b"new\n"),
    (folder_entry("srv"), b""),
    (
        dataclasses.replace(
            file_entry("srv/acl", 5, mode=0o644),
            uid=1000,
            acls={"access": LIST},
            xattrs={"user.colour": b"blue", "user.bytes": b"\0\xff\n"},
        ),
        b"hello",
    ),
    (
        Entry(name="srv/again", mode=stat.S_IFREG | 0o644, uid=1000, gid=0, mtime_ns=0,
              link_to="srv/acl"),
        b"",
    ),
    (dataclasses.replace(file_entry("srv/set", 2), mode=stat.S_IFREG | 0o4755), b"#!"),
    (_link("srv/sym", "/nowhere/at/all"), b""),
    (Entry(name="srv/pipe", mode=stat.S_IFIFO | 0o620, uid=0, gid=0, mtime_ns=0), b""),
]  # fmt: skip


def layer() -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out)
    for entry, data in MEMBERS:
        tar.add(entry, [data] if data else ())
    tar.close()
    return out.getvalue()


def exported(folder: Path, name: str = "demo") -> Path:
    layout = folder / "layout"
    layout.mkdir(parents=True)
    oci.write_layout(io.BytesIO(layer()), layout, name=name, annotations={oci.HEAD: "{}"})
    return layout


def imported(layout: Path, name: str = "") -> dict[str, tuple[Entry, bytes]]:
    out = io.BytesIO()
    with oci.opened(oci.read_layout(layout, name)) as blob:
        oci.from_oci(blob, out)
    out.seek(0)
    return {entry.name: (entry, b"".join(data)) for entry, data in members(out)}


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (apt-get install {' '.join(missing)})")


def test_a_layer_comes_back_the_same(tmp_path: Path) -> None:
    layout = exported(tmp_path)
    assert list(imported(layout).values()) == MEMBERS
    found = oci.read_layout(layout)
    assert (found.below, found.annotations[oci.HEAD]) == (0, "{}")
    assert oci.read_layout(layout, "demo") == found


def test_the_same_layer_makes_the_same_image(tmp_path: Path) -> None:
    one, other = exported(tmp_path / "1"), exported(tmp_path / "2")
    assert (one / "index.json").read_bytes() == (other / "index.json").read_bytes()


def test_skopeo_copies_it_and_it_comes_back_the_same(tmp_path: Path) -> None:
    need("skopeo")
    layout = exported(tmp_path)
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet"]
    proc.run([*copy, f"oci:{layout}:demo", f"oci:{tmp_path}/second:demo"], timeout=60)
    assert list(imported(tmp_path / "second").values()) == MEMBERS
    proc.run([*copy, f"oci:{layout}:demo", f"docker-archive:{tmp_path}/x.tar:demo:1"], timeout=60)
    proc.run([*copy, f"docker-archive:{tmp_path}/x.tar", f"oci:{tmp_path}/third:x"], timeout=60)
    assert list(imported(tmp_path / "third").values()) == MEMBERS


def test_umoci_unpacks_it_and_its_own_layer_is_understood(tmp_path: Path) -> None:
    need("umoci")
    if os.geteuid() != 0:
        pytest.skip("needs root: umoci sets owners")
    layout = exported(tmp_path)
    bundle, image = tmp_path / "bundle", f"{layout}:demo"
    proc.run(["umoci", "unpack", "--image", image, bundle], timeout=60)
    root = bundle / "rootfs"
    assert (root / "srv/again").samefile(root / "srv/acl")
    assert os.getxattr(root / "srv/acl", "user.bytes") == b"\0\xff\n"
    shown = proc.run(["getfacl", "-cnp", root / "srv/acl"], timeout=30).stdout
    assert shown.split() == LIST.split()
    assert stat.filemode((root / "srv/set").stat().st_mode) == "-rwsr-xr-x"

    (root / "srv/pipe").unlink()
    shutil.rmtree(root / "etc/skel")
    (root / "srv/added").write_text("by umoci")
    os.setxattr(root / "srv/acl", "user.colour", b"red")
    proc.run(["umoci", "repack", "--image", image, bundle], timeout=60)
    seen = imported(layout, "demo")
    hidden = {entry.hides for entry, _ in seen.values()} - {None}
    assert hidden == {"srv/pipe", "etc/skel"}
    assert seen["srv/added"][1] == b"by umoci"
    changed = seen["srv/acl"][0]
    assert changed.xattrs["user.colour"] == b"red" and changed.acls == {"access": LIST}
    assert oci.read_layout(layout, "demo").below == 1


def _replace(layout: Path, **changes: object) -> None:
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0].update(changes)
    (layout / "index.json").write_text(json.dumps(index))


def _spoil_blob(layout: Path) -> None:
    blob = oci.read_layout(layout).blob
    blob.write_bytes(blob.read_bytes()[:-20] + bytes(20))


def _link_out(layout: Path) -> None:
    blob = oci.read_layout(layout).blob
    blob.unlink()
    blob.symlink_to("/etc/passwd")


def _drop_index(layout: Path) -> None:
    (layout / "index.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_drop_index, "not an OCI image layout"),
        (_spoil_blob, "not what its name says"),
        (_link_out, "no such blob"),
        (lambda at: _replace(at, digest="sha256:../../../etc/passwd"), "else than a SHA-256"),
        (lambda at: _replace(at, digest=f"sha256:{'0' * 64}"), "no such blob"),
        (lambda at: _replace(at, digest=7), "else than a SHA-256"),
        (
            lambda at: _replace(at, mediaType="application/vnd.oci.image.index.v1+json"),
            "several architectures",
        ),
        (lambda at: (at / "index.json").write_text("[]"), "not an OCI image layout"),
        (lambda at: (at / "index.json").write_text("{}"), "0 images fit"),
        (lambda at: (at / "index.json").write_text("[" * 100_000), "not an OCI image layout"),
    ],
)
def test_a_layout_that_is_wrong_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    layout = exported(tmp_path)
    spoil(layout)
    with pytest.raises(ArchiveError, match=said):
        imported(layout)
