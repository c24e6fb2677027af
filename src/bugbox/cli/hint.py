# SPDX-License-Identifier: Apache-2.0
"""bugbox hint: help, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import document, duration, paint, printable, prose, say
from bugbox.errors import UserError

__all__ = ["hint", "hint_lines"]


def hint(
    id: str | None = None,
    n: int | None = None,
    /,
    *,
    all: bool = False,
    now: bool = False,
    json: bool = False,
) -> int:
    """Give the next hint, or one by its number.

    Args:
        id: Which session. Without it, the only one there is.
        n: The number of the hint; it is given also when its author would still wait.
        all: All of them, as with a number.
        now: The next one, also when its author would still wait.
        json: Print one JSON document.
    """
    if n is None and id is not None and id.isdigit():
        n, id = int(id), None  # `bugbox hint 2` where one session runs
    if all and n is not None:
        raise UserError("a number or --all, not both")
    args: dict[str, Any] = {"id": id}
    args.update({key: value for key, value in (("all", all), ("now", now)) if value})
    args.update({} if n is None else {"n": n})
    answer = ask("hint", args)
    if json:
        document(answer)
        return 0
    told = answer if isinstance(answer, list) else [answer]
    # Where its author's time binds, it is held back all the same.
    way = "" if now or all or n is not None else "bugbox hint --now"
    say("\n\n".join("\n".join(hint_lines(each, way)) for each in told))
    return 0


def hint_lines(answer: Mapping[str, Any], now: str = "bugbox hint --now") -> list[str]:
    """Write one hint for people; `now` is how they get one that is held back, if they can."""
    head = f"Hint {answer['n']} of {answer['of']}: {printable(str(answer['title']))}"
    lines = [paint(head, "bold")]
    if answer.get("cost"):
        lines[0] += paint(f"  (costs {answer['cost']})", "dim")
    wait = answer.get("next_in_s")
    if answer.get("text") is None:
        when = f"in {duration(float(wait))}" if wait else "after a few more checks"
        if not now:
            return [*lines, f"It is given {when}."]
        return [*lines, f"Its author would give it {when}. Now: {now}"]
    lines += ["", prose(str(answer["text"]))]
    if wait:
        lines += ["", paint(f"the next one in {duration(wait)}", "dim")]
    return lines
