# SPDX-License-Identifier: Apache-2.0
"""A base image's name follows from everything it is made from, and from nothing else."""

import dataclasses

import pytest

from bugbox.errors import HostError, NotFound
from bugbox.image import digest, source
from bugbox.image.recipe import File, Recipe, UnitRule, parse_packages, parse_units
from bugbox.puzzle import keys

RECIPE = Recipe(
    name="debian-12",
    suite="bookworm",
    size_bytes=1 << 30,
    packages=("systemd", "strace"),
    units=(
        UnitRule(rule="off", unit="ssh.service", reason="off"),
        UnitRule(rule="mask", unit="a.service", reason="slow"),
        UnitRule(rule="generator", unit="g", reason="slow"),
    ),
    files={"etc/hosts": File(data=b"127.0.0.1 localhost\n")},
    scripts={"configure.sh": b"true"},
)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "debian-13"},
        {"suite": "trixie"},
        {"size_bytes": 2 << 30},
        {"packages": ("systemd", "strace", "ltrace")},
        {"units": RECIPE.units[1:]},
        {"units": (dataclasses.replace(RECIPE.units[1], unit="b.service"), *RECIPE.units[::2])},
        {"files": {"etc/hosts": File(data=b"")}},
        {"files": {"etc/hosts": File(data=b"127.0.0.1 localhost\n", executable=True)}},
        {"files": {"etc/hosts2": File(data=b"127.0.0.1 localhost\n")}},
        {"scripts": {"configure.sh": b"false"}},
    ],
)
def test_every_ingredient_changes_the_digest(change):
    changed = dataclasses.replace(RECIPE, **change)
    assert changed.digest("6.1") != RECIPE.digest("6.1")


def test_the_kernel_changes_the_digest():
    assert RECIPE.digest("6.1.1") != RECIPE.digest("6.1.2")


def test_the_order_of_packages_does_not():
    again = dataclasses.replace(RECIPE, packages=RECIPE.packages[::-1])
    assert again.digest("6.1") == RECIPE.digest("6.1")


def test_digests_keep_labels_and_values_apart():
    assert digest.of({"a": "bc"}) != digest.of({"ab": "c"})
    assert digest.of({"a": "1", "b": "2"}) != digest.of({"a": "12", "b": ""})
    assert digest.of({"a": "1", "b": "2"}) == digest.of({"b": b"2", "a": b"1"})


def test_rules_become_presets_and_links():
    assert "disable ssh.service\n" in RECIPE.preset()
    assert RECIPE.preset_units() == ["ssh.service"]
    assert RECIPE.masks() == ["etc/systemd/system/a.service", "etc/systemd/system-generators/g"]


def test_packages_are_one_a_line():
    assert parse_packages("# head\nacl\n\nattr  # why\n") == ("acl", "attr")


@pytest.mark.parametrize("text", ["acl attr", "acl\nacl"])
def test_odd_packages_are_refused(text):
    with pytest.raises(HostError, match="acl"):
        parse_packages(text)


@pytest.mark.parametrize(
    "text",
    [
        "mask a.service",
        "mask a.service #  ",
        "hide a.service # x",
        "mask # x",
        "mask a # x\noff a # y",
    ],
)
def test_a_unit_rule_needs_a_known_word_one_unit_and_a_reason(text):
    with pytest.raises(HostError, match="units:"):
        parse_units(text)


def test_the_shipped_recipe():
    recipe = source.load("debian-12")
    assert {"procps", "iproute2", "lsof", "strace", "acl", "openssh-server"} <= set(recipe.packages)
    assert "ssh.service" in recipe.preset_units()
    assert recipe.files["usr/lib/bugbox/ssh-keys"].executable
    assert set(recipe.scripts) == {"configure.sh", "finish.sh"}
    # No secret, and nobody's address, in what every machine gets.
    for path, file in recipe.files.items():
        assert b"PRIVATE KEY" not in file.data, path
        assert b"://" not in file.data, path


def test_another_process_1_is_all_that_changes():
    below, recipe = source.load("debian-12"), source.load("debian-12-tini")
    assert set(recipe.packages) - set(below.packages) == {"busybox"}
    assert set(below.packages) < set(recipe.packages)
    changed = {path for path in below.files if recipe.files[path] != below.files[path]}
    assert changed == {"etc/fstab"}
    assert recipe.files["usr/lib/bugbox/init/up"].executable
    # Its own part follows the other's.
    assert recipe.scripts["configure.sh"].startswith(below.scripts["configure.sh"])
    assert recipe.scripts["finish.sh"] == below.scripts["finish.sh"]


def test_an_image_is_named_by_its_init():
    assert source.with_init("debian-12", "systemd") == "debian-12"
    assert source.with_init("debian-12", "tini") == "debian-12-tini"
    with pytest.raises(NotFound, match="no lab with tini"):
        source.with_init("lab", "tini")


def test_puzzles_may_start_from_every_base_but_the_lab():
    assert set(keys._BASES) == set(source.names()) - {"lab"}


def test_an_unknown_image_names_the_nearest():
    with pytest.raises(NotFound) as caught:
        source.load("debian12")
    assert caught.value.hint == "did you mean debian-12?"
