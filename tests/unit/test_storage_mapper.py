# SPDX-License-Identifier: Apache-2.0
"""Device-mapper tables as text, and what dmsetup says of a snapshot."""

from pathlib import Path

import pytest

from bugbox.errors import HostError
from bugbox.storage import mapper


def test_a_table_has_its_targets_one_after_the_other() -> None:
    made = mapper.table(
        [
            mapper.linear(16, Path("/dev/loop0")),
            mapper.linear(8, Path("/dev/loop1"), 32),
            mapper.zero(0),
            mapper.zero(1000),
        ]
    )
    assert made == "0 16 linear /dev/loop0 0\n16 8 linear /dev/loop1 32\n24 1000 zero\n"


def test_a_snapshot_is_persistent_in_pages() -> None:
    line = mapper.table([mapper.snapshot(4096, Path("/dev/mapper/below"), Path("/dev/loop2"))])
    assert line == "0 4096 snapshot /dev/mapper/below /dev/loop2 P 8\n"


def test_other_targets() -> None:
    pool = mapper.thin_pool(2048, Path("/dev/loop1"), Path("/dev/loop2"), low_water=4)
    assert mapper.table([pool]) == (
        "0 2048 thin-pool /dev/loop1 /dev/loop2 128 4 1 error_if_no_space\n"
    )
    assert mapper.thin(8, Path("/dev/mapper/p"), 3)[1] == "thin /dev/mapper/p 3"
    assert mapper.thin(8, Path("/p"), 3, Path("/b"))[1] == "thin /p 3 /b"
    assert mapper.origin(8, Path("/dev/loop0"))[1] == "snapshot-origin /dev/loop0"


@pytest.mark.parametrize("chunks", [1, 255, 256, 257, 524_288])
def test_a_store_has_room_for_every_chunk(chunks: int) -> None:
    """A header, then a chunk of 256 entries before each 256 chunks of data, one begun ahead."""
    areas = -(-chunks // 256)
    assert mapper.store_bytes(chunks * 4096) >= (1 + areas + chunks + 1) * 4096
    assert mapper.store_bytes(chunks * 4096) < (chunks + areas + 8) * 4096


def test_usage() -> None:
    full = mapper._parse_usage("0 4194304 snapshot 1320/4194320 16\n")
    assert full == mapper.Usage(1320 * 512, 4194320 * 512, valid=True)
    assert not mapper._parse_usage("0 4194304 snapshot Invalid\n").valid
    with pytest.raises(HostError, match="unknown"):
        mapper._parse_usage("0 8 linear 7:0 0")


def test_names_are_checked() -> None:
    with pytest.raises(HostError, match="no name"):
        mapper.create("../../etc", [mapper.zero(8)])
