# SPDX-License-Identifier: Apache-2.0
"""What differs from session to session: drawn once, kept, and seen by those who may see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from session_world import MANIFEST, World, run, world

from bugbox.errors import DefinitionError
from bugbox.puzzle.definition import load
from bugbox.puzzle.lint import lint
from bugbox.puzzle.manifest import Variant
from bugbox.puzzle.variants import draw, environment, picks
from bugbox.session.manager import Manager

VARIANTS = {
    "SERVICE": Variant(pick=("meterd", "gaugectl", "tallyd")),
    "TOKEN": Variant(random="hex", bytes=4),
    "PIN": Variant(random="digits", bytes=6),
}
YAML = """\
variants:
  SERVICE: {pick: [meterd, gaugectl, tallyd]}
  TOKEN: {random: hex, bytes: 4}
"""


def test_a_seed_draws_the_same_each_time() -> None:
    first = draw(VARIANTS, 7)
    assert draw(VARIANTS, 7) == first
    assert draw({**VARIANTS, "MORE": Variant(random="hex")}, 7).items() >= first.items()
    assert len({draw(VARIANTS, seed)["TOKEN"] for seed in range(20)}) == 20
    assert {draw(VARIANTS, seed)["SERVICE"] for seed in range(50)} == {
        "meterd",
        "gaugectl",
        "tallyd",
    }


def test_what_is_drawn_has_the_length_it_should_have() -> None:
    found = draw(VARIANTS)
    assert len(found["TOKEN"]) == 8 and int(found["TOKEN"], 16) >= 0
    assert len(found["PIN"]) == 6 and found["PIN"].isdecimal()
    assert draw(VARIANTS, None, {"PIN": "1"})["PIN"] == "1"


def test_a_word_can_be_said_and_typed() -> None:
    found = {draw({"HOST": Variant(random="word", bytes=6)}, seed)["HOST"] for seed in range(50)}
    assert len(found) > 40
    for word in found:
        assert re.fullmatch(r"([bdgklmnprstvz][aeiou]){3}", word)
    assert len(draw({"W": Variant(random="word")}, 1)["W"]) == 8


def test_only_what_is_picked_is_shared() -> None:
    found = draw(VARIANTS, 1)
    assert picks(VARIANTS, found) == {"SERVICE": found["SERVICE"]}
    assert environment({"A": "b"}) == {"PUZZLE_A": "b"}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.wire()
        made.write("puzzle.yaml", MANIFEST + YAML)
        made.write("description.md", "Mend {{SERVICE}}, not {{OTHER}}.\n")
        made.write("hints/1.md", "Look at {{SERVICE}}.\n")
        yield made


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("variants: {A: {}}\n", "variants.A: expected either pick"),
        ("variants: {A: {pick: [a], random: hex}}\n", "variants.A: expected either pick"),
        ("variants: {a: {pick: [a]}}\n", "upper-case letters"),
        ("variants: {A: {pick: []}}\n", "variants.A.pick"),
    ],
)
def test_a_variant_is_one_thing_or_the_other(made: World, yaml: str, expected: str) -> None:
    made.write("puzzle.yaml", MANIFEST + yaml)
    with pytest.raises(DefinitionError) as error:
        load(made.puzzle)
    assert expected in error.value.message


@pytest.mark.parametrize(
    ("file", "text", "wrong"),
    [
        ("build.sh", "echo $PUZZLE_TOKEN", "a layer is the same for all sessions"),
        ("build.sh", "echo ${PUZZLE_SERVICE}", "a layer is the same for all sessions"),
        ("boot.sh", "echo $PUZZLE_TOKEN", "use it in session.sh"),
        ("break.sh", 'echo "$PUZZLE_TOKEN"', "use it in session.sh"),
        ("session.sh", "echo $PUZZLE_TOKN", "PUZZLE_TOKN is not one of the variants"),
        ("session.sh", "echo $PUZZLE_TOKEN", ""),
        ("boot.sh", "echo $PUZZLE_SERVICE", ""),
        ("build.sh", "# $PUZZLE_TOKEN", ""),
    ],
)
def test_lint_knows_which_script_has_which(made: World, file: str, text: str, wrong: str) -> None:
    made.write("description.md", "Mend {{SERVICE}}.\n")
    made.write(file, f"#!/bin/sh\n{text}\n")
    found = [each for each in lint(made.puzzle) if each.rule == "variant"]
    assert [(each.file.name, each.line) for each in found] == ([(file, 2)] if wrong else [])
    assert not wrong or wrong in found[0].message


def test_scripts_texts_and_checks_see_the_sessions_values(made: World) -> None:
    say = '#!/bin/sh\necho "{}-$PUZZLE_SERVICE-$PUZZLE_TOKEN" >>"$FAKE_ROOT/log"\n'
    for name in ("boot", "break", "session", "ready"):
        made.write(f"{name}.sh", say.format(name))
    made.write("checks/made.sh", '#!/bin/sh\nfail "it is $PUZZLE_TOKEN"\n')

    async def work() -> None:
        async with Manager(made.home, made.settings) as manager:
            answer = await manager.answer("start", {"puzzle": str(made.puzzle), "seed": 7})
            id = str(answer["id"])
            values = draw(load(made.puzzle).manifest.variants, 7)
            service, token = values["SERVICE"], values["TOKEN"]
            assert made.log(id) == [
                f"boot-{service}-",
                f"break-{service}-",
                f"session-{service}-{token}",
                f"ready-{service}-{token}",
            ]
            report: Any = await manager.answer("check", {"id": id})
            assert report["checks"][0]["message"] == f"it is {token}"
            story: Any = await manager.answer("story", {"id": id})
            assert story["text"] == f"Mend {service}, not {{{{OTHER}}}}.\n"
            hint: Any = await manager.answer("hint", {"id": id})
            assert hint["text"] == f"Look at {service}.\n"
            await manager.answer("reset", {"id": id})
            assert made.log(id)[-1] == f"ready-{service}-{token}"
        # Another process takes it over: the values are in the record.
        async with Manager(made.home, made.settings) as manager:
            await manager.adopt_all()
            report = await manager.answer("check", {"id": id})
            assert report["checks"][0]["message"] == f"it is {token}"
            await manager.answer("stop", {"all": True})

    run(work)
