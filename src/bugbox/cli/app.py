# SPDX-License-Identifier: Apache-2.0
"""The whole command line: every command, its help, and what to say about a mistake in it.

Commands are named by module and function and loaded when they are used.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import cyclopts

from bugbox import __version__
from bugbox.cli.ask import check_settings
from bugbox.cli.fast import SHORT, split
from bugbox.cli.helptext import Columns
from bugbox.errors import UserError

__all__ = ["LATER", "app", "commands", "run"]

#: Verbs that are named already and come later.
LATER = (
    "serve", "image export",
)  # fmt: skip


#: Commands that take words after `--`.
_WITH_ARGV = ("shell",)
#: Commands that work with a wrong setting too.
_WITHOUT_SETTINGS = ("--help", "-h", "--version", "completion", "schema", "new", "import")


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


_group(
    "People who learn",
    "list", "show", "play", "check", "hint", "solution",
    "undo", "checkpoint", "reset", "fork",
)  # fmt: skip
_group(
    "People who work with machines",
    "start", "shell", "cp", "forward",
    "console", "logs", "ps", "pause", "resume", "stop", "doctor", "debug", "gc",
)  # fmt: skip
_authors = _group(
    "People who write puzzles",
    "new", "lint", "build", "test", "dev", "diff", "schema", "pack", "add",
)  # fmt: skip
# Not called after its verb, which is a word of Python's.
app.command("bugbox.cli.importing:importing", name="import", group=_authors)
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
        if rest is not None and verb not in _WITH_ARGV:
            raise _nothing_after(verb) from None
        raise _mistake(own, error) from None
    if rest is not None:
        if "argv" not in (getattr(command, "__kwdefaults__", None) or {}):
            raise _nothing_after(verb)
        bound.arguments["argv"] = rest
    if verb not in _WITHOUT_SETTINGS and not {"--help", "-h", "--version"} & {*own}:
        check_settings()
    status = command(*bound.args, **bound.kwargs)
    return status if isinstance(status, int) else 0


def _nothing_after(verb: str) -> UserError:
    return UserError(f"`bugbox {verb}` takes nothing after `--`", hint=f"bugbox {verb} --help")


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
    name = " ".join(path)
    helps = f"bugbox {name} --help" if path else "bugbox --help"
    if name in _WITH_ARGV and (meant := _with_dashes(argv)):
        return UserError(f"`bugbox {name}` takes one session", hint=f"did you mean `{meant}`?")
    if isinstance(error, cyclopts.UnusedCliTokensError):
        words = " ".join(error.unused_tokens or ())
        return UserError(f"`bugbox {name}` has no use for: {words}", hint=helps)
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        missing = error.argument.name
        option = missing if missing.startswith("-") else missing.upper()
        return UserError(f"`bugbox {name}` needs {option}", hint=helps)
    if isinstance(error, cyclopts.CoercionError) and error.argument is not None:
        kind = str(error.argument.hint)
        wanted = "a whole number" if kind in ("int | None", str(int)) else "another value"
        given = error.token.value if error.token else ""
        return UserError(
            f"`bugbox {name}`: {error.argument.name}: expected {wanted}, got {given!r}", hint=helps
        )
    return UserError(" ".join(str(error).split()), hint=helps)


def _with_dashes(argv: Sequence[str]) -> str:
    """Write `shell ID CMD ...` as it has to be; empty where there is no second word."""
    places = [
        at
        for at, word in enumerate(argv)
        if at and not word.startswith("-") and argv[at - 1] != "--user"
    ]
    if len(places) < 2:
        return ""
    at = places[1]
    return f"bugbox {shlex.join(argv[:at])} -- {shlex.join(argv[at:])}"


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
