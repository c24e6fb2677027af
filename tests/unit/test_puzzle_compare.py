# SPDX-License-Identifier: Apache-2.0
"""From two lists of a container's files to the members of a layer."""

from __future__ import annotations

import pytest

from bugbox.puzzle.compare import Changes, Listed, compare, parse
from bugbox.storage.archive import ArchiveError

BASE = b"d 1 10.5 \0d 2 10 etc\0f 3 10 etc/motd\0d 4 10 etc/skel\0f 5 10 etc/skel/a\0d 6 10 srv\0"


def changes(after: bytes, *never: str) -> Changes:
    return compare(parse(BASE), parse(after), never)


def edited(*edits: tuple[bytes, bytes]) -> bytes:
    after = BASE
    for old, new in edits:
        assert old in after
        after = after.replace(old, new)
    return after


def test_a_list_is_read_with_any_name() -> None:
    listed = parse(b"d 1 1.5 \0f 2 1 a b\nc \xff\0")
    assert listed["."] == Listed("d", "1", "1.5")
    assert listed["a b\nc \udcff"] == Listed("f", "2", "1")


def test_nothing_changed_is_the_root_alone() -> None:
    found = changes(BASE)
    assert found.members == (".",) and found.whiteouts == ()


def test_a_new_file_comes_with_the_folders_above_it() -> None:
    found = changes(BASE + b"f 9 11 srv/x\0")
    assert found.members == (".", "srv", "srv/x")


def test_a_changed_mode_another_inode_another_kind() -> None:
    for new in (b"f 3 11 etc/motd", b"f 9 10 etc/motd", b"l 9 11 etc/motd"):
        assert changes(edited((b"f 3 10 etc/motd", new))).members == (".", "etc", "etc/motd")


def test_a_deletion_is_a_whiteout_and_one_for_a_whole_tree() -> None:
    found = changes(edited((b"f 3 10 etc/motd\0", b""), (b"d 2 10 etc\0", b"d 2 11 etc\0")))
    assert found.whiteouts == ("etc/.wh.motd",)
    assert found.members == (".", "etc", "etc/.wh.motd")
    gone = edited((b"d 4 10 etc/skel\0f 5 10 etc/skel/a\0", b""))
    assert changes(gone).whiteouts == ("etc/.wh.skel",)


def test_a_directory_made_anew_hides_what_it_had() -> None:
    found = changes(
        edited((b"d 4 10 etc/skel\0f 5 10 etc/skel/a\0", b"d 9 11 etc/skel\0f 8 11 etc/skel/b\0"))
    )
    assert found.whiteouts == ("etc/skel/.wh..wh..opq",)
    assert found.members == (
        ".",
        "etc",
        "etc/skel",
        "etc/skel/.wh..wh..opq",
        "etc/skel/b",
    )


def test_a_file_in_a_directorys_place_says_all() -> None:
    found = changes(edited((b"d 4 10 etc/skel\0f 5 10 etc/skel/a\0", b"f 9 11 etc/skel\0")))
    assert found.whiteouts == () and found.members == (".", "etc", "etc/skel")


def test_what_never_belongs_to_a_layer() -> None:
    after = edited((b"f 3 10 etc/motd\0", b"")) + b"d 8 11 tmp\0f 9 11 tmp/x\0f 7 11 srv/tmp\0"
    found = changes(after, "tmp", "etc/mo*")
    assert found.members == (".", "srv", "srv/tmp") and found.whiteouts == ()


def test_sockets_are_told_and_left_out() -> None:
    found = changes(BASE + b"s 9 11 srv/sock\0")
    assert found.sockets == ("srv/sock",) and found.members == (".",)


def test_the_order_is_that_of_a_tree_sorted_by_name() -> None:
    found = changes(BASE + b"f 7 11 srv/a.b\0d 8 11 srv/a\0f 9 11 srv/a/x\0f 10 11 srv/A\0")
    assert found.members == (".", "srv", "srv/A", "srv/a", "srv/a/x", "srv/a.b")


@pytest.mark.parametrize("said", [b"f 1 2", b"nonsense\0", b"f 1\0"])
def test_a_list_that_is_none_is_refused(said: bytes) -> None:
    with pytest.raises(ArchiveError):
        parse(said)


def test_names_reserved_for_deletions_are_refused() -> None:
    with pytest.raises(ArchiveError, match=r"srv/\.wh\.x"):
        changes(BASE + b"f 9 11 srv/.wh.x\0")
