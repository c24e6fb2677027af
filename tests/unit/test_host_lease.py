# SPDX-License-Identifier: Apache-2.0
"""Leases: one owner a number, through deaths and races."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bugbox.errors import HostError, OutOfResources
from bugbox.host.lease import Lease, Leases, tag


def owner(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place


def test_one_number_an_owner(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases", "things", 3)
    owners = [owner(tmp_path, name) for name in "abc"]
    taken = [leases.take(each, hint="").number for each in owners]
    assert sorted(taken) == [0, 1, 2]
    assert leases.take(owners[1], hint="", facts={"x": 1}).number == taken[1]
    with leases.locked() as book:
        assert book.of(owners[1]) == Lease(taken[1], owners[1], {"x": 1})
    with pytest.raises(OutOfResources, match="all 3 things of bugbox are in use") as full:
        leases.take(owner(tmp_path, "d"), hint="stop one")
    assert full.value.hint == "stop one"
    leases.end(owners[0])
    leases.end(owners[0])
    assert leases.take(tmp_path / "d", hint="").number == taken[0]


def test_a_lease_goes_stale_with_its_folder(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases", "things", 3)
    place = owner(tmp_path, "a")
    leases.take(place, hint="")
    with leases.locked() as book:
        assert not book.all()[0].stale
    place.rmdir()
    with leases.locked() as book:
        assert book.all()[0].stale


def test_what_fails_is_not_written(tmp_path: Path) -> None:
    leases = Leases(tmp_path / "leases", "things", 3)
    with pytest.raises(RuntimeError), leases.locked() as book:
        book.take(tmp_path, 3, {})
        raise RuntimeError
    with leases.locked() as book:
        assert book.all() == []


@pytest.mark.parametrize("text", ["{", '[{"number": "x"}]', "[1]"])
def test_a_file_that_is_no_list_of_leases(tmp_path: Path, text: str) -> None:
    (tmp_path / "things.json").write_text(text)
    with pytest.raises(HostError, match=r"things\.json: cannot be read") as wrong:
        Leases(tmp_path, "things", 3).take(tmp_path, hint="")
    assert "bugbox gc" in str(wrong.value.hint)


TAKE = """
import sys
from pathlib import Path
from bugbox.host.lease import Leases
folder = Path(sys.argv[1])
leases = Leases(folder / "leases", "things", 64)
for name in range(8):
    place = folder / f"{sys.argv[2]}-{name}"
    place.mkdir()
    print(leases.take(place, hint="").number)
"""


def test_processes_that_take_at_once_get_different_ones(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", TAKE, str(tmp_path)]
    racers = [
        subprocess.Popen([*argv, str(n)], stdout=subprocess.PIPE, text=True) for n in range(8)
    ]
    told = [racer.communicate(timeout=120)[0].split() for racer in racers]
    numbers = [number for each in told for number in each]
    assert len(numbers) == len(set(numbers)) == 64


def test_a_tag_is_short_and_an_owners_own() -> None:
    assert tag(Path("/a")) != tag(Path("/b"))
    assert len(tag(Path("/a" * 200))) == 10
