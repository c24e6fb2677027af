# SPDX-License-Identifier: Apache-2.0
"""The initramfs archive: exact bytes, what the kernel demands, and that busybox reads it back."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.image import cpio
from bugbox.image.initrd import contents


def read(data: bytes) -> list[tuple[str, int, bytes]]:
    """A reader written from the format's description, not from the writer."""
    found = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        assert data[at + 110 + name_size - 1] == 0
        body = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            assert not data[body:].strip(b"\0")
            return found
        found.append((name, mode, data[body : body + size]))
        at = (body + size + 3) & ~3


def test_exact_bytes_of_one_file():
    made = cpio.archive([cpio.file("init", b"hello", 0o755)])
    head = b"07070100000001000081ED00000000000000000000000100000000"
    head += b"00000005000000000000000000000000000000000000000500000000"
    assert made.startswith(head + b"init\0\0" + b"hello\0\0\0" + b"070701")
    assert len(made) % 512 == 0


@given(
    st.dictionaries(
        st.text("abcdefgh-.", min_size=1, max_size=12), st.binary(max_size=300), max_size=12
    )
)
def test_what_goes_in_comes_out(files):
    entries = [cpio.directory("d"), *(cpio.file(f"d/{n}", data) for n, data in files.items())]
    back = read(cpio.archive(entries))
    assert back[0] == ("d", 0o40755, b"")
    assert {name[2:]: data for name, _, data in back[1:]} == files


@pytest.mark.parametrize(
    "entries",
    [
        [cpio.file("a/b", b"")],
        [cpio.file("a/b", b""), cpio.directory("a")],
        [cpio.file("/a", b"")],
        [cpio.file("", b"")],
        [cpio.directory("a"), cpio.directory("a")],
    ],
)
def test_names_the_kernel_could_not_unpack_are_refused(entries):
    with pytest.raises(ValueError, match=r"folder|name"):
        cpio.archive(entries)


def made() -> bytes:
    loaded, vsock = {"virtio_ring": b"R", "virtio": b"V"}, {"vsock": b"S"}
    parts = contents(lifeline=b"L", client=b"C", busybox=b"B", loaded=loaded, vsock=vsock)
    return cpio.archive(parts)


def test_layout_of_the_initramfs():
    by_name = {name: (mode, data) for name, mode, data in read(made())}
    assert by_name["init"] == (0o100755, b"L")
    assert by_name["tools/busybox"] == (0o100755, b"B")
    assert by_name["client/bugbox"] == (0o100755, b"C")
    assert by_name["modules/list"][1] == b"virtio_ring.ko\nvirtio.ko\n"
    assert by_name["modules/virtio.ko"] == (0o100644, b"V")
    assert by_name["modules/vsock"][1] == b"vsock.ko\n"
    assert by_name["modules/vsock.ko"] == (0o100644, b"S")
    assert {"dev", "proc", "sys", "newroot", "run"} <= set(by_name)


def test_equal_contents_give_equal_bytes():
    assert made() == made()


@pytest.mark.skipif(not shutil.which("cpio"), reason="no cpio on this host")
def test_the_usual_program_reads_it(tmp_path):
    listing = subprocess.run(["cpio", "-t"], input=made(), capture_output=True, check=True)
    assert b"tools/busybox" in listing.stdout
