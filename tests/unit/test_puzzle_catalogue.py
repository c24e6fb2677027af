# SPDX-License-Identifier: Apache-2.0
"""Which puzzle is meant."""

from pathlib import Path

import pytest

from bugbox.errors import DefinitionError, NotFound
from bugbox.paths import Home, shipped_puzzles
from bugbox.puzzle.catalogue import Shelf, entries, find, locate, names, roots
from bugbox.puzzle.scaffold import create


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "catalogue"
    root.mkdir()
    create(root, "read-me")
    create(root, "deleted")
    (root / "not-one").mkdir()
    (root / "file.txt").write_text("x")
    return root


def test_the_shipped_catalogue() -> None:
    found = entries(roots())
    assert {"read-me", "deleted-but-open", "address-already-in-use"} <= {e.name for e in found}
    assert [each.error for each in found if each.puzzle is None] == []


def test_roots_of_the_settings_come_first(root: Path, tmp_path: Path) -> None:
    where = roots(f"{root}:{tmp_path}/none")
    assert where == (root, tmp_path / "none", shipped_puzzles(), Home().puzzles)
    assert roots("", Home(tmp_path))[-1] == tmp_path / "puzzles"
    assert find("read-me", where, tmp_path).folder == root / "read-me"


def test_a_broken_puzzle_is_listed_with_its_error(root: Path) -> None:
    (root / "deleted/puzzle.yaml").write_text("schema: 1\n")
    assert names([root]) == ["deleted", "read-me"]
    broken, fine = entries([root])
    assert broken.puzzle is None and "title: this key is missing" in broken.error
    assert fine.puzzle is not None and fine.error == ""
    with pytest.raises(DefinitionError):
        find("deleted", [root], root)


def test_names_and_folders(root: Path, tmp_path: Path) -> None:
    here = create(tmp_path, "read-me")
    mine = create(tmp_path, "mine")
    assert locate("read-me", [root], tmp_path) == root / "read-me"
    assert locate("./read-me", [root], tmp_path) == here
    assert locate("mine", [root], tmp_path) == mine
    assert locate(str(mine), [root], Path("/")) == mine
    assert locate(None, [root], mine) == mine
    assert locate("mine/puzzle.yaml", [root], tmp_path) == mine
    assert find(".", [root], mine).name == "mine"


@pytest.mark.parametrize(
    ("ref", "message", "hint"),
    [
        (None, "no puzzle named, and no puzzle.yaml in", "bugbox list"),
        ("read-mee", "no puzzle is called read-mee", "did you mean read-me?"),
        ("zzzzzzz", "no puzzle is called zzzzzzz", "there are deleted, read-me"),
        ("../nowhere", "../nowhere: no such folder", ""),
        ("..", ".. is a folder without a puzzle.yaml", "bugbox lint"),
        ("", "is a folder without a puzzle.yaml", ""),
        ("packed.bugbox", "packed.bugbox is a file", "bugbox add packed.bugbox"),
        ("x" * 5000, "cannot be the name of a puzzle", "bugbox list"),
        ("a\0b", "no puzzle is called a\\x00b", "there are"),
        ("~nobody-of-that-name/x", "cannot be the name of a puzzle", "bugbox list"),
        ("\x1b[2J", "no puzzle is called \\x1b[2J", "there are"),
    ],
)
def test_what_is_not_there(
    root: Path, tmp_path: Path, ref: str | None, message: str, hint: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "packed.bugbox").write_text("x")
    with pytest.raises(NotFound) as caught:
        locate(ref, [root], here)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_shelf_loads_again_what_has_changed(root: Path) -> None:
    shelf = Shelf()
    first = shelf.find("deleted", [root], root)
    assert shelf.find("deleted", [root], root) is first
    text = root / "deleted" / "solve.sh"
    for change in (
        lambda: text.write_text("#!/bin/sh\ntrue\n"),
        lambda: text.rename(text.with_name("other.sh")),
        lambda: text.symlink_to("other.sh"),
        lambda: text.with_name("other.sh").write_text("#!/bin/sh\nfalse\n"),
        lambda: text.with_name("other.sh").chmod(0o700),
    ):
        before = shelf.find("deleted", [root], root)
        change()
        after = shelf.find("deleted", [root], root)
        assert after is not before
    (root / "deleted/puzzle.yaml").write_text("schema: 1\n")
    with pytest.raises(DefinitionError):
        shelf.find("deleted", [root], root)
