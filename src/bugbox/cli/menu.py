# SPDX-License-Identifier: Apache-2.0
"""What stands around a living terminal: the words before it, and the actions of its menu. Thin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bugbox.cli.ask import ask
from bugbox.cli.check import report_lines
from bugbox.cli.checkpoint import kept_line
from bugbox.cli.hint import hint_lines
from bugbox.cli.leaving import choose
from bugbox.cli.out import complain, paint, printable, prose, say
from bugbox.cli.outcome import interrupts, tell
from bugbox.cli.terminal import Hooks, key_name
from bugbox.cli.undo import undo_line
from bugbox.errors import BugboxError

__all__ = ["attempt", "check_action", "hooks", "introduce", "story_lines"]


def introduce(info: Mapping[str, Any], escape: int | None) -> None:
    """Print title, goal and the menu key."""
    if info.get("title"):
        say(paint(printable(str(info["title"])), "bold"))
    if info.get("goal"):
        say(prose(str(info["goal"])))
    if escape is not None:
        key = key_name(escape)
        say(paint(f"{key} opens the menu: check, hint, story, undo, detach, quit", "dim"))


def hooks(id: str) -> Hooks:
    """Return the menu of a plain `bugbox shell`."""
    held_back = False

    def hint() -> str:
        """Give the next one; pressed again, one that its author holds back."""
        nonlocal held_back
        again = "" if held_back else "h in this menu once more"
        answer = ask("hint", {"id": id, "now": held_back})
        held_back = answer["text"] is None
        return _print(hint_lines(answer, again))

    return Hooks(
        {
            "c": lambda: attempt(lambda: _nothing(check_action(id))),
            "h": lambda: attempt(hint),
            "s": lambda: attempt(lambda: _print(story_lines(ask("story", {"id": id})))),
            "u": lambda: attempt(lambda: _undo(id)),
        }
    )


def attempt(action: Callable[[], str]) -> str:
    """Run an action of the menu: neither an error nor Ctrl-C may cost the terminal."""
    try:
        return action()
    except BugboxError as error:
        tell(error)
    except KeyboardInterrupt:
        complain("\ninterrupted")
    finally:
        interrupts.forgive()
    return ""


def check_action(id: str) -> bool:
    """Check and print the report; return whether it is solved."""
    answer = ask("check", {"id": id})
    say("\n".join(report_lines(answer)))
    return answer["solved"] is True


def _undo(id: str) -> str:
    """Go back to a checkpoint, or keep one to go back to later."""
    found = ask("checkpoint", {"id": id, "list": True})["checkpoints"]
    choices = {"k": "keep the machine as it is now, to go back to", "n": "nothing"}
    if found:
        label = printable(str(found[0]["label"]))
        choices = {"b": f"back to checkpoint {label}, what was done since is gone", **choices}
    wish = choose("Undo?" if found else "There is no checkpoint to go back to yet.", choices, "n")
    if wish == "b":
        say(undo_line(ask("undo", {"id": id, "label": found[0]["label"]})))
    elif wish == "k":
        say(kept_line(ask("checkpoint", {"id": id})))
    return ""


def story_lines(answer: Mapping[str, Any]) -> list[str]:
    """Write a puzzle's story for people."""
    title = paint(printable(str(answer.get("title", ""))), "bold")
    return [title, "", prose(str(answer.get("text", "")))]


def _print(lines: list[str]) -> str:
    say("\n".join(lines))
    return ""


def _nothing(_: object) -> str:
    return ""
