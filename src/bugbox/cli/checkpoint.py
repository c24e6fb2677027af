# SPDX-License-Identifier: Apache-2.0
"""bugbox checkpoint: keep a running machine as it is, to go back to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.out import document, printable, say
from bugbox.errors import UserError

__all__ = ["checkpoint", "kept_line"]


def checkpoint(
    id: str | None = None,
    label: str | None = None,
    /,
    *,
    list: bool = False,
    remove: str | None = None,
    json: bool = False,
) -> int:
    """Keep a running machine as it is now, memory and disk, to go back to with `bugbox undo`.

    Args:
        id: Which session. Without it, the only one there is.
        label: What it is called; one of that name is replaced. Without it, the next number.
        list: Show those there are, the newest first.
        remove: Remove the one of this label instead.
        json: Print one JSON document.
    """
    if list and label is not None:
        raise UserError("--list shows all of them", hint=f"bugbox checkpoint {id} --list")
    if remove is not None and (list or label is not None):
        hint = f"bugbox checkpoint {id} --remove {remove}" if id else ""
        raise UserError("--remove takes one label, and does nothing else", hint=hint)
    answer = ask("checkpoint", {"id": id, "label": label, "list": list, "remove": remove})
    if json:
        document(answer)
    elif remove is not None:
        say(f"checkpoint {printable(remove)} of {answer['id']} is removed")
    elif list:
        rows = [_row(each) for each in answer["checkpoints"]]
        rows += [f"{printable(each):<24} damaged" for each in answer["damaged"]]
        say("\n".join(rows) if rows else f"{answer['id']} has no checkpoints")
    else:
        say(kept_line(answer))
        say(f"`bugbox undo {answer['id']} {answer['label']}` goes back to it")
    return 0


def kept_line(answer: Mapping[str, Any]) -> str:
    """Say for people what was kept."""
    pause = round(answer["pause_ms"])
    what = f"checkpoint {printable(str(answer['label']))} of {answer['id']} is kept"
    return f"{what}; it stood still for {pause} ms"


def _row(each: Mapping[str, Any]) -> str:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(each["made"])))
    return f"{printable(str(each['label'])):<24} {made}  {each['mib']:>5} MiB"
