# SPDX-License-Identifier: Apache-2.0
"""docs/reference/cli.md, made from the help texts: `python -m bugbox.cli.reference > PAGE`."""

from __future__ import annotations

import io

from rich.console import Console

from bugbox.cli.app import LATER, app, commands
from bugbox.cli.out import say

__all__ = ["page"]

_HEAD = """\
# Commands

Made from `--help`; `make docs` writes it again. [Errors and exit statuses](errors.md) says how
commands end.
"""


def page() -> str:
    """Return the page: every command under a heading of its own."""
    parts = [_HEAD, _help(())]
    for name, path in sorted(commands().items()):
        parts.append(f"## bugbox {name}\n\n{_help(path)}")
    later = ", ".join(f"`{name}`" for name in sorted(LATER))
    parts.append(f"## Not there yet\n\nNamed, and refused with status 2: {later}.\n")
    return "\n".join(parts)


def _help(path: tuple[str, ...]) -> str:
    for name in [*app]:
        app[name]  # loads it, so that the list has its first line
    written = io.StringIO()
    console = Console(file=written, width=100, color_system=None, force_terminal=False)
    app.help_print(list(path), console=console)
    text = "\n".join(line.rstrip() for line in written.getvalue().strip().splitlines())
    return f"```\n{text}\n```\n"


if __name__ == "__main__":
    say(page().rstrip("\n"))
