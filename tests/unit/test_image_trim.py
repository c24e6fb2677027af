# SPDX-License-Identifier: Apache-2.0
"""Each unit that is off says why and what brings it back, and the page says the same."""

from pathlib import Path

from bugbox.image import source, trim
from bugbox.puzzle.units import SERVICES

PAGE = Path(__file__).parents[2] / "docs/reference/base-image.md"
RULES = {rule.unit: rule for rule in source.load("debian-12").units}


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == trim.page(RULES.values(), SERVICES), "run `make docs`"


def test_every_rule_can_be_undone():
    for rule in RULES.values():
        assert bool(trim.brings_back(rule)) == (rule.rule != "on")
    assert trim.brings_back(RULES["ssh.service"]) == "systemctl enable --now ssh.service"
    assert "unmask user@.service" in trim.brings_back(RULES["user@.service"])


def test_names_stand_for_units_with_a_rule():
    for name, units in SERVICES.items():
        for unit in units:
            assert RULES[unit].rule in ("off", "mask"), name
