# SPDX-License-Identifier: Apache-2.0
"""What is off in a base image and what brings it back: a recipe's unit rules, read the other way.

`SERVICES` are the names under which a puzzle may ask for units: words for what one wants, since
one thing is often several units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bugbox.image.recipe import UnitRule

__all__ = ["SERVICES", "brings_back", "page"]

#: Units by the name of what they are for. Every one of them has a rule in the recipe.
SERVICES: Mapping[str, tuple[str, ...]] = {
    "ssh": ("ssh.service",),
    "getty": ("getty@.service",),
    "network": ("systemd-networkd.service", "systemd-networkd-wait-online.service"),
    "firewall": ("nftables.service",),
    "remote-filesystems": ("remote-fs.target",),
    "sysstat": ("sysstat.service", "sysstat-collect.timer", "sysstat-summary.timer"),
    "apt-timers": ("apt-daily.timer", "apt-daily-upgrade.timer"),
    "maintenance-timers": (
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "man-db.timer",
    ),
    "random-seed": ("systemd-random-seed.service",),
    "journal-on-disk": ("systemd-journal-flush.service",),
    "user-manager": ("user@.service",),
    "fuse-control": ("sys-fs-fuse-connections.mount",),
    "configfs": ("sys-kernel-config.mount",),
    "huge-pages": ("dev-hugepages.mount",),
    "device-mapper": ("modprobe@dm_mod.service",),
    "loop": ("modprobe@loop.service",),
}


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

What one wants is often several units. These names stand for them:

| name | units |
|---|---|
"""


def page(rules: Iterable[UnitRule]) -> str:
    """Return the reference page."""
    rows = [f"| `{r.unit}` | {_WORDS[r.rule]} | {r.reason} | `{brings_back(r)}` |" for r in rules]
    names = [
        f"| `{name}` | {', '.join(f'`{unit}`' for unit in units)} |"
        for name, units in SERVICES.items()
    ]
    return _HEAD + "\n".join(rows) + "\n" + _NAMES + "\n".join(names) + "\n"
