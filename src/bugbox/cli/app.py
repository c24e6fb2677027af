# SPDX-License-Identifier: Apache-2.0
"""The whole command line: every command, its help, and what to say about a mistake in it.

Commands are named by module and function and loaded when they are used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import cyclopts

from bugbox import __version__
from bugbox.cli.fast import SHORT, split
from bugbox.cli.helptext import Columns
from bugbox.errors import UserError

__all__ = ["LATER", "app", "commands", "run"]

#: Verbs that are named already and come later.
LATER = (
    "undo", "checkpoint", "fork", "pause", "import",
    "serve", "image export",
)  # fmt: skip


def _shown(value: object) -> str:
    return "" if value in (False, None, "auto", ()) else str(value)


app = cyclopts.App(
    name="bugbox",
    help="Linux debugging puzzles in real, disposable virtual machines.\n\n"
    "Exit status: 0 done or solved, 1 failed or not solved, 2 your mistake, 3 this host lacks "
    "something, 4 undecided, 70 a bug of bugbox, 130 interrupted.",
    version=__version__,
    version_flags=["--version"],
    help_format="plaintext",
    help_formatter=cast(Any, Columns()),
    result_action="return_value",
    default_parameter=cyclopts.Parameter(
        negative=(), show_default=_shown, parse=re.compile("^(?!argv$)")
    ),
)


def _group(title: str, *names: str) -> cyclopts.Group:
    group = cyclopts.Group.create_ordered(title)
    for name in names:
        app.command(f"bugbox.cli.{name}:{name}", name=name, group=group)
    return group


def _family(group: cyclopts.Group, name: str, about: str, **children: str) -> None:
    parent = cyclopts.App(name=name, help=about, group=group)
    for child, function in children.items():
        parent.command(f"bugbox.cli.{name}:{function}", name=child)
    app.command(parent)


_group("People who learn", "list", "show", "play", "check", "hint", "solution", "reset")
_group(
    "People who work with machines",
    "start", "shell", "cp", "forward",
    "console", "logs", "ps", "resume", "stop", "doctor", "debug", "gc",
)  # fmt: skip
_authors = _group(
    "People who write puzzles",
    "new", "lint", "build", "test", "dev", "diff", "schema", "pack", "add",
)  # fmt: skip
_family(_authors, "bundle", "Puzzles for a room without a network.", save="save", load="load")
_parts = _group("People who look after the parts", "keeper", "lab", "completion")
_family(
    _parts, "image", "Base images.", build="build", list="list_", show="show", rm="remove"
)  # fmt: skip
_family(
    _parts, "layer", "What puzzles change on their base image.",
    show="show", verify="verify", export="export", apply="apply",
)  # fmt: skip
_family(
    _parts, "kernel", "Kernels.",
    list="list_", show="show", build="build", compare="compare",
)  # fmt: skip
_family(_parts, "boot", "Where a boot's time goes.", report="report", tune="tune")


def run(argv: Sequence[str]) -> int:
    """Run one command, or print its help; UserError with the nearest right thing otherwise."""
    own, rest = split(argv)
    verb = own[0] if own else "--help"
    for later in (verb, " ".join(own[:2])):
        if later in LATER:
            raise UserError(f"`bugbox {later}` is not there yet", hint="see bugbox --help")
    if verb in ("--help", "-h"):
        for name in [*app]:
            app[name]  # loads it: its first line is in the list
    own = [verb, *(SHORT.get(verb, {}).get(word, word) for word in own[1:])]
    try:
        command, bound, _ = app.parse_args(own, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise _mistake(own, error) from None
    if rest is not None:
        if "argv" not in (getattr(command, "__kwdefaults__", None) or {}):
            raise UserError(f"`bugbox {verb}` takes nothing after `--`")
        bound.arguments["argv"] = rest
    status = command(*bound.args, **bound.kwargs)
    return status if isinstance(status, int) else 0


def _mistake(argv: Sequence[str], error: cyclopts.CycloptsError) -> UserError:
    known = commands()
    path = next((argv[:n] for n in (2, 1) if " ".join(argv[:n]) in known), [])
    if isinstance(error, cyclopts.UnknownCommandError):
        wrong = argv[len(path)]
        prefix = "".join(f"{word} " for word in path)
        choices = [name.removeprefix(prefix) for name in known if name.startswith(prefix)]
        choices = [name for name in choices if " " not in name]
        near = get_close_matches(wrong, choices, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(choices))}"
        return UserError(f"there is no command `bugbox {prefix}{wrong}`", hint=hint)
    text = " ".join(str(error).split())
    return UserError(text, hint=f"bugbox {' '.join([*path, '--help'])}")


def commands() -> dict[str, tuple[str, ...]]:
    """Return every command, `image list` and the like too, with the words that lead to it."""
    found: dict[str, tuple[str, ...]] = {}
    for name in app:
        if name.startswith("-"):
            continue
        found[name] = (name,)
        if name in ("image", "kernel", "layer", "boot", "bundle"):
            found |= {f"{name} {n}": (name, n) for n in app[name] if not n.startswith("-")}
    return found
