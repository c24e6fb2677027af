# SPDX-License-Identifier: Apache-2.0
"""The loss table: what build.sh does to a filesystem, and what a learner's machine shows of it.

    python -m tests.vm.losses        builds and boots it with each builder; prints a line a row

One puzzle does all of it, one machine for each builder looks at all of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bugbox.paths import Home
from tests.conftest import Bugbox
from tests.vm.conftest import running_engine

__all__ = ["ROWS", "Row", "answers", "puzzle", "table"]

_LONG = f"long={'n' * 255}"
_END = "== end"


@dataclass(frozen=True)
class Row:
    """What build.sh does, what somebody in the machine looks at, and what is to be seen."""

    name: str
    build: str
    look: str
    seen: str


def _rows() -> list[Row]:
    found = []
    text = (Path(__file__).parent / "loss_table.txt").read_text()
    for block in text.split("\n\n")[1:]:
        name, *lines = block.strip("\n").split("\n")
        parts = {mark: "\n".join(line[2:] for line in lines if line[0] == mark) for mark in "$?="}
        found.append(Row(name.strip("[]"), parts["$"], parts["?"], parts["="]))
    return found


ROWS = _rows()


def puzzle(bugbox: Bugbox, parent: Path) -> Path:
    """Write the puzzle whose build.sh goes through all rows; return its folder."""
    bugbox("new", "losses", cwd=parent)
    folder = parent / "losses"
    steps = "\n".join(row.build for row in ROWS)
    (folder / "build.sh").write_text(f"#!/bin/sh\nset -e\n{_LONG}\n{steps}\n")
    (folder / "ready.sh").write_text("#!/bin/sh\nexit 0\n")
    return folder


def answers(bugbox: Bugbox, id: str) -> dict[str, str]:
    """Look at every row in a machine; what is seen, by the row's name."""
    script = "\n".join(f"echo {shlex.quote(f'== {row.name}')}; (\n{row.look}\n)" for row in ROWS)
    said = bugbox.root(id, f"export LC_ALL=C.UTF-8 {_LONG}\n{script}\necho '{_END}'")
    found = dict(part.split("\n", 1) for part in said.split("== ") if part)
    return {name: seen.rstrip("\n") for name, seen in found.items()}


def table(seen: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the table's lines: a row each, a column for each builder."""
    lines = [
        f"| row | {' | '.join(seen)} | expected in the machine |",
        "|---|" + "---|" * (len(seen) + 1),
    ]
    for row in ROWS:
        marks = (
            "as expected"
            if found.get(row.name) == row.seen
            else f"**{_short(found.get(row.name, 'nothing'))}**"
            for found in seen.values()
        )
        lines.append(f"| {row.name} | {' | '.join(marks)} | {_short(row.seen)} |")
    return lines


def _short(text: str) -> str:
    return (
        " · ".join(f"`{' '.join(line.split())}`" for line in text.split("\n") if line.strip())
        or "(empty)"
    )


@contextmanager
def _borrowing(built: Home) -> Iterator[Bugbox]:
    """A home with no layers, which borrows the rest."""
    folder = Path(tempfile.mkdtemp(prefix="bugbox-test-"))
    folder.chmod(0o711)
    for name in ("images", "kernels", "cache"):
        (folder / name).symlink_to(built.root / name)
    bugbox = Bugbox(folder)
    try:
        yield bugbox
    finally:
        bugbox.end()
        shutil.rmtree(bugbox.home.runtime, ignore_errors=True)
        shutil.rmtree(folder)


def _seen_with(builder: str, engine: str) -> dict[str, str]:
    with _borrowing(Home()) as bugbox:
        if builder == "docker":
            bugbox.env["DOCKER_HOST"] = engine
        folder = puzzle(bugbox, bugbox.home.root)
        bugbox("build", str(folder), "--builder", builder, timeout=600)
        return answers(bugbox, bugbox.start(str(folder), "--no-build"))


def main(builders: Sequence[str] = ("vm", "docker")) -> int:
    """Print the table; 0 when every row is as expected with both builders."""
    os.environ.setdefault("BUGBOX_TEMPLATES", "off")
    with running_engine() as engine:
        seen = {builder: _seen_with(builder, engine) for builder in builders}
    print("\n".join(table(seen)))
    wrong = [row.name for row in ROWS for found in seen.values() if found.get(row.name) != row.seen]
    print(f"\n{len(ROWS)} rows, {len(seen)} builders, wrong: {len(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
