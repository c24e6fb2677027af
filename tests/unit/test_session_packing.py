# SPDX-License-Identifier: Apache-2.0
"""Packs: a puzzle goes into one file and comes out the same; a stranger's file is only read."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.cli import add as cli
from bugbox.errors import BugboxError, DefinitionError, NotFound, UserError
from bugbox.paths import Home
from bugbox.puzzle.catalogue import names, roots
from bugbox.puzzle.definition import load
from bugbox.puzzle.inputs import pack as inputs
from bugbox.puzzle.scaffold import create
from bugbox.session.builder import brought
from bugbox.session.download import download
from bugbox.session.layer import BuiltLayer, head_of
from bugbox.session.packing import add, pack
from bugbox.storage import layer_file
from bugbox.storage.archive import ArchiveError, Entry
from bugbox.storage.pack_file import PACK, PackWriter
from bugbox.storage.tar_writer import TarWriter, file_entry, folder_entry

BASE = "b" * 64


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path / "home"))
    return Home()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = create(tmp_path, "small")
    (folder / "files").mkdir()
    (folder / "files" / "data~").write_text("the author's own")
    (folder / "files" / "link").symlink_to("data~")
    (folder / ".git").mkdir()
    (folder / ".git" / "secret").write_text("not for others")
    (folder / "puzzle.yaml~").write_text("an editor's")
    return folder


def layer_of(folder: Path, at: Path) -> BuiltLayer:
    """Make up a layer as if the puzzle had been built on BASE."""
    puzzle = load(folder)
    at.mkdir()
    with (at / "tar").open("wb") as out:
        tar = TarWriter(out)
        tar.add(folder_entry("."))
        tar.close()
    head = head_of(
        at / "tar",
        name="small",
        version="",
        inputs=inputs(puzzle, None),
        base="debian-12",
        base_digest=BASE,
        disk_bytes=puzzle.manifest.machine.disk,
    )
    layer_file.write(at / "tar", at / "puzzle.tar.zst", head)
    return BuiltLayer(
        key="k", folder=at, size_bytes=1, tar_sha256=head.tar_sha256, base_digest=BASE
    )


@pytest.fixture
def packed(home: Home, folder: Path, tmp_path: Path) -> Path:
    to = tmp_path / "small.bugbox"
    pack(home, load(folder), layer_of(folder, tmp_path / "layer"), to)
    return to


def files(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(folder).as_posix(): (
            path.read_bytes(),
            bool(path.lstat().st_mode & 0o111),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_puzzle_comes_out_as_it_went_in(home: Home, folder: Path, packed: Path) -> None:
    added = add(home, packed)
    assert (added.new, added.layer, added.for_learners) == (True, "unpacked", False)
    theirs = {
        name: each
        for name, each in files(folder).items()
        if not name.startswith(".git") and name != "puzzle.yaml~"
    }
    assert files(home.puzzles / "small") == theirs
    assert (home.puzzles / "small" / "files" / "link").is_symlink()
    assert "small" in names(roots("", home))
    # The layer that came along is this puzzle's, on that base and no other.
    assert brought(home, added.puzzle, BASE) == home.added_layer("small")
    assert brought(home, added.puzzle, "c" * 64) is None
    assert brought(home, load(folder), BASE) is None


def test_what_a_build_gets_is_packed_whole(home: Home, folder: Path, tmp_path: Path) -> None:
    """A hidden file of it too, or the layer would be another one at the other end."""
    (folder / "src").mkdir()
    (folder / "src" / ".hidden").write_text("x")
    (folder / ".mine").write_text("x")
    with (folder / "puzzle.yaml").open("a") as manifest:
        manifest.write("build: {inputs: [src]}\n")
    pack(home, load(folder), layer_of(folder, tmp_path / "layer"), tmp_path / "small.bugbox")
    added = add(home, tmp_path / "small.bugbox")
    assert added.layer == "unpacked"
    assert (added.puzzle.folder / "src/.hidden").is_file()
    assert not (added.puzzle.folder / ".mine").exists()


def test_once_build_sh_changes_the_layer_is_no_longer_its(home: Home, packed: Path) -> None:
    add(home, packed)
    script = home.puzzles / "small" / "build.sh"
    script.write_text(script.read_text() + "# more\n")
    assert brought(home, load(home.puzzles / "small"), BASE) is None


def test_learners_get_no_solution(home: Home, folder: Path, tmp_path: Path) -> None:
    to = tmp_path / "out.bugbox"
    pack(home, load(folder), None, to, for_learners=True)
    added = add(home, to)
    assert (added.for_learners, added.layer) == (True, "built")
    assert added.puzzle.solutions == () and added.puzzle.wrong == ()
    assert added.puzzle.walkthrough == ""
    assert len(added.puzzle.checks) == len(load(folder).checks)
    assert added.puzzle.debrief and added.puzzle.hints


def test_a_solution_that_the_manifest_names_is_withheld_too(
    home: Home, folder: Path, tmp_path: Path
) -> None:
    (folder / "solve.sh").rename(folder / "answer.sh")
    (folder / "solution.md").rename(folder / "told.md")
    with (folder / "puzzle.yaml").open("a") as manifest:
        manifest.write("solution: {script: answer.sh, walkthrough: told.md}\n")
    secret = (folder / "answer.sh").read_bytes()
    to = tmp_path / "out.bugbox"
    pack(home, load(folder), None, to, for_learners=True)
    assert secret not in to.read_bytes()
    assert "kept the solution" in add(home, to).puzzle.walkthrough


def test_the_same_twice_is_one_and_another_needs_to_be_asked_for(
    home: Home, folder: Path, packed: Path, tmp_path: Path
) -> None:
    add(home, packed)
    assert add(home, packed).new is False
    (folder / "debrief.md").write_text("Another end.\n")
    other = tmp_path / "other.bugbox"
    pack(home, load(folder), None, other)
    with pytest.raises(UserError, match="another small was added before") as caught:
        add(home, other)
    assert caught.value.hint is not None and "--replace" in caught.value.hint
    assert add(home, other, replace=True).puzzle.debrief.startswith("Another end.")
    assert not home.added_layer("small").exists(), "the old one's layer is left"


def test_packing_is_the_same_each_time_and_overwrites_nothing(
    home: Home, folder: Path, tmp_path: Path
) -> None:
    puzzle = load(folder)
    assert pack(home, puzzle, None, tmp_path / "a") == pack(home, puzzle, None, tmp_path / "b")
    with pytest.raises(UserError, match="is there already"):
        pack(home, puzzle, None, tmp_path / "a")
    with pytest.raises(UserError, match="no such folder"):
        pack(home, puzzle, None, tmp_path / "nowhere" / "a")


def test_add_says_whose_it_is(home: Home, packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.add(str(packed)) == 0
    said = capsys.readouterr().out
    assert "author:  not named" in said and "licence: " in said and "digest:  sha256:" in said
    assert said.endswith("bugbox play small\n")
    assert cli.add(str(packed), json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["new"] is False and told["layer"] == "unpacked" and len(told["sha256"]) == 64


def test_a_packed_file_is_shown_and_nothing_of_it_kept(
    home: Home, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bugbox.cli.show import show

    assert show(str(packed)) == 0
    assert "small" in capsys.readouterr().out
    assert not home.puzzles.exists()
    assert [each for each in home.tmp.iterdir() if each.is_dir()] == []


def test_a_packed_file_can_stand_where_a_name_does(
    home: Home, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bugbox.cli.ask import puzzle_ref

    assert puzzle_ref(str(packed)) == str(home.puzzles / "small")
    assert "small is added: author not named" in capsys.readouterr().err
    assert puzzle_ref(str(packed)) == str(home.puzzles / "small")
    assert capsys.readouterr().err == ""
    (tmp_path / "letter.txt").write_text("not a pack")
    with pytest.raises(NotFound, match=r"letter\.txt is a file, and no packed puzzle"):
        puzzle_ref(str(tmp_path / "letter.txt"))


def test_a_file_that_is_not_there(home: Home) -> None:
    with pytest.raises(NotFound, match="no such file"):
        cli.add("nowhere.bugbox")


def test_the_reference_names_what_a_pack_says_of_itself(home: Home, packed: Path) -> None:
    from bugbox.storage.pack_file import read_about

    page = (Path(__file__).parents[2] / "docs/reference/pack.md").read_text()
    for key in read_about(packed, PACK):
        assert f"| `{key}` |" in page, key
    assert PACK in page


class Stranger:
    """Writes packs that no bugbox would write."""

    def __init__(self, folder: Path, **about: object) -> None:
        self.path = folder / "strange.bugbox"
        self.out = io.BytesIO()
        self.writer = PackWriter(self.out, {"format": PACK, "name": "small", **about})

    def good(self, folder: Path) -> Stranger:
        self.writer.tree("puzzle", folder, lambda name: name.startswith("."))
        return self

    def entry(self, entry: Entry, data: bytes = b"") -> Stranger:
        self.writer._tar.add(entry, [data] if data else ())
        return self

    def done(self) -> Path:
        self.writer.close()
        self.path.write_bytes(self.out.getvalue())
        return self.path


def refused(home: Home, path: Path) -> BugboxError:
    with pytest.raises(BugboxError) as caught:
        add(home, path)
    # Whatever was wrong, nothing of it is kept, and nothing lies about.
    left = list(home.puzzles.rglob("*")) if home.puzzles.exists() else []
    assert [each.name for each in left if each.name != ".layers"] == []
    if home.tmp.exists():
        assert [each.name for each in home.tmp.iterdir() if each.is_dir()] == []
    return caught.value


@pytest.mark.parametrize("name", ["../x", "/x", "", "X Y", "a" * 80, 7, None, "read-me"])
def test_a_name_that_is_none_or_taken_is_refused(home: Home, tmp_path: Path, name: object) -> None:
    refused(home, Stranger(tmp_path, name=name).done())


def test_a_pack_with_a_way_out_is_refused(home: Home, folder: Path, tmp_path: Path) -> None:
    strange = Stranger(tmp_path).good(folder)
    assert "no puzzle" in refused(home, Stranger(tmp_path).done()).message
    link = dataclasses.replace(
        file_entry("puzzle/way", 0), mode=stat.S_IFLNK | 0o777, target=str(tmp_path)
    )
    path = strange.entry(link).entry(file_entry("puzzle/way/out", 1), b"x").done()
    assert "puzzle/way: a symbolic link" in refused(home, path).message
    inside = dataclasses.replace(link, name="puzzle/files/way")
    strange = Stranger(tmp_path).good(folder).entry(inside)
    path = strange.entry(file_entry("puzzle/files/way/out", 1), b"x").done()
    assert "below puzzle/files/way, which is not a folder" in refused(home, path).message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "entry",
    [
        file_entry("puzzle/../../x", 0),
        file_entry("/etc/x", 0),
        file_entry("puzzle/.wh.x", 0),
        dataclasses.replace(file_entry("puzzle/p", 0), mode=stat.S_IFIFO | 0o600),
        dataclasses.replace(file_entry("puzzle/n", 0), mode=stat.S_IFCHR | 0o600, device=(1, 3)),
        dataclasses.replace(file_entry("puzzle/h", 0), link_to="puzzle/puzzle.yaml"),
    ],
    ids=lambda entry: entry.name,
)
def test_what_is_no_plain_file_is_refused(
    home: Home, folder: Path, tmp_path: Path, entry: Entry
) -> None:
    path = Stranger(tmp_path).good(folder).entry(entry).done()
    assert isinstance(refused(home, path), ArchiveError)


def test_a_puzzle_that_is_wrong_is_refused_with_the_place(
    home: Home, folder: Path, tmp_path: Path
) -> None:
    text = (folder / "puzzle.yaml").read_text()
    (folder / "puzzle.yaml").write_text(text.replace("title: A", "ttle: A"))
    error = refused(home, Stranger(tmp_path).good(folder).done())
    assert isinstance(error, DefinitionError) and "puzzle.yaml:2:1" in str(error)


def test_a_link_that_leaves_files_is_refused(home: Home, folder: Path, tmp_path: Path) -> None:
    (folder / "files" / "out").symlink_to("/etc/passwd")
    assert isinstance(refused(home, Stranger(tmp_path).good(folder).done()), DefinitionError)


def test_a_layer_of_another_puzzle_is_refused(home: Home, folder: Path, tmp_path: Path) -> None:
    layer = layer_of(folder, tmp_path / "layer").tar
    (folder / "build.sh").write_text("#!/bin/sh\nexit 0\n")
    strange = Stranger(tmp_path).good(folder)
    strange.writer.file("layer.tar.zst", layer)
    assert "not made from its build.sh" in refused(home, strange.done()).message


def test_a_damaged_pack_is_refused(home: Home, packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    for spoilt in (b"", data[:100], data[:-3000], data[:3000] + b"x" + data[3001:]):
        packed.write_bytes(spoilt)
        refused(home, packed)


def test_other_files_are_refused(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"PK\x03\x04" * 1000)
    assert "not a tar" in refused(home, path).message
    out = io.BytesIO()
    PackWriter(out, {"format": "bugbox pack 2"}).close()
    path.write_bytes(out.getvalue())
    assert "expected 'bugbox pack 1'" in refused(home, path).message


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()
        thread.join()


def test_an_address_is_fetched(
    home: Home, packed: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert cli.add(f"{server}/{packed.name}") == 0
    assert (home.puzzles / "small" / "puzzle.yaml").is_file()


def test_an_address_that_does_not_answer_or_is_too_large(
    packed: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match="cannot be fetched"):
        download(f"{server}/nothing", tmp_path / "a", limit=1 << 20)
    with pytest.raises(UserError, match="larger than 0 MiB"):
        download(f"{server}/{packed.name}", tmp_path / "b", limit=100)
    with pytest.raises(UserError, match="expected an address"):
        download("file:///etc/passwd", tmp_path / "c", limit=100)
