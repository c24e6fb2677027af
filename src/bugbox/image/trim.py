# SPDX-License-Identifier: Apache-2.0
"""What is off in a base image and what brings it back: a recipe's unit rules read backwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bugbox.image.recipe import UnitRule

__all__ = ["brings_back", "page"]


def brings_back(rule: UnitRule) -> str:
    """Return the line that undoes a rule, as root in the machine; empty for what is on."""
    name = rule.unit
    if rule.rule == "off":
        shown = name.replace("@.", "@NAME.")
        return f"systemctl enable --now {shown}"
    if rule.rule == "mask":
        shown = name.replace("@.", "@NAME.")
        return f"systemctl unmask {name} && systemctl start {shown}"
    if rule.rule == "generator":
        return f"rm /etc/systemd/system-generators/{name} && systemctl daemon-reload"
    return ""


_HEAD = """\
# What is off in the base image

Made from the recipe; `make docs` writes it again. A boot is slow only by what runs before
`multi-user.target`; timers are off when what they do later would take a learner's CPU, network or
attention. Nothing is removed: the last column brings each back, in a running machine or in a
puzzle's `build.sh` (there without `--now` and `start`: no init runs).

| unit | | why | what brings it back |
|---|---|---|---|
"""
_WORDS = {"on": "on", "off": "off", "mask": "masked", "generator": "generator masked"}
_NAMES = """
## Names for units

What one wants is often several units. These names stand for them in `boot.units` of `puzzle.yaml`:

| name | units |
|---|---|
"""


def page(rules: Iterable[UnitRule], services: Mapping[str, Iterable[str]]) -> str:
    """Return the reference page; `services` are names for units."""
    rows = [f"| `{r.unit}` | {_WORDS[r.rule]} | {r.reason} | `{brings_back(r)}` |" for r in rules]
    names = [
        f"| `{name}` | {', '.join(f'`{unit}`' for unit in units)} |"
        for name, units in services.items()
    ]
    return _HEAD + "\n".join(rows) + "\n" + _NAMES + "\n".join(names) + "\n"
