# SPDX-License-Identifier: Apache-2.0
"""Settings of this host: `config.toml` in the state directory, overruled by `BUGBOX_*`.

Read once, at the edge (`cli` or the keeper's start), and passed down as values.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bugbox.errors import UserError
from bugbox.paths import Home

__all__ = ["Settings", "load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator may set. Each field is a key of config.toml and BUGBOX_<FIELD>."""

    #: auto, qemu or firecracker.
    driver: str = "auto"
    #: auto, kvm or tcg. `auto` boots a probe before it trusts /dev/kvm.
    accel: str = "auto"
    #: auto, qcow2, snapshot, copy or overlay.
    disk: str = "auto"
    #: A Debian mirror's URL; empty: mmdebstrap's own default.
    debian_mirror: str = ""
    #: Name or path of the QEMU program.
    qemu: str = "qemu-system-x86_64"
    #: Name or path of the Firecracker program.
    firecracker: str = "firecracker"
    #: Name or path of Firecracker's jailer.
    jailer: str = "jailer"
    #: on: Firecracker runs in its jail, as a user of its own. off: WITHOUT it, with all our rights.
    firecracker_jail: str = "on"
    #: Multiplies every time-out that waits for a guest.
    timeout_factor: float = 1.0
    #: Where else puzzles are looked for: folders separated by ':'.
    puzzles: str = ""
    #: Seconds without a machine or a client after which the keeper ends.
    keeper_idle: float = 300.0
    #: Seconds without use after which a quiet machine is paused; 0: never.
    idle_pause: float = 600.0
    #: MiB of the host's memory that no machine is promised.
    memory_reserve: int = 256
    #: First uid of the range QEMU runs under when bugbox is run by root; 0: stay root.
    uid_base: int = 1_900_000_000
    #: on: a puzzle's first start leaves a template behind, and later ones are clones; or off.
    templates: str = "on"
    #: Standby clones kept for each recently started puzzle; 0: none.
    standby: int = 1
    #: Standby clones in all, and MiB of memory that they may take together.
    standby_most: int = 3
    standby_memory: int = 1024
    #: MiB of disk that templates may take together.
    templates_space: int = 4096
    #: on: a machine whose puzzle asks for `network.egress: full` may reach all that this host
    #: reaches, its own services among it; or off.
    open_network: str = "off"
    #: Where the links of machines with a network of their own come from, a /30 each.
    network_pool: str = "10.213.0.0/16"
    #: auto: the first name server that this host asks; or an IPv4 address.
    network_dns: str = "auto"
    #: on: a puzzle's limits bind (the time of a session, between two checks, until a hint), as on
    #: a host that serves others; off: they inform.
    limits: str = "off"
    #: Key that opens the menu in `play`, as a caret name.
    escape: str = "^]"


def load(home: Home, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings; raise UserError naming file and key when one is wrong."""
    values = _from_file(home.settings)
    values.update(_from_environ(os.environ if environ is None else environ))
    return Settings(**values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error
    return {key: _checked(key, value, f"{path}: {key}") for key, value in raw.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in fields(Settings):
        name = f"BUGBOX_{field.name.upper()}"
        if environ.get(name):
            found[field.name] = _checked(field.name, environ[name], name)
    return found


_CHOICES = {
    "driver": ("auto", "qemu", "firecracker"),
    "firecracker_jail": ("on", "off"),
    "templates": ("on", "off"),
    "open_network": ("on", "off"),
    "limits": ("on", "off"),
    "accel": ("auto", "kvm", "tcg"),
    "disk": ("auto", "qcow2", "snapshot", "copy", "overlay"),
}


_TYPES: dict[type, str] = {float: "a number", int: "a whole number", str: "text"}
_ESCAPE = re.compile(r"\^[@-_a-z]|none")


def _checked(key: str, value: Any, where: str) -> Any:
    known = {field.name: field for field in fields(Settings)}
    if key not in known:
        near = get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known settings: {', '.join(known)}"
        raise UserError(f"{where}: unknown setting", hint=hint)
    wanted: type[Any] = type(known[key].default)
    try:
        result = wanted(value)
    except (TypeError, ValueError):
        raise UserError(f"{where}: expected {_TYPES[wanted]}, got {value!r}") from None
    if key in _CHOICES and result not in _CHOICES[key]:
        raise UserError(f"{where}: expected one of {', '.join(_CHOICES[key])}, got {value!r}")
    never = key == "idle_pause" and result == 0
    if wanted is float and not 0 < result < 1e6 and not never:
        raise UserError(f"{where}: expected a number above 0, got {value!r}")
    if key == "escape" and not _ESCAPE.fullmatch(result):
        raise UserError(f"{where}: expected a caret name such as ^], or none; got {value!r}")
    return result
