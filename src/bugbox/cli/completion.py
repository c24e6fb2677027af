# SPDX-License-Identifier: Apache-2.0
"""bugbox completion: what a shell needs to complete our words."""

from __future__ import annotations

from typing import Literal

from bugbox.cli.out import say
from bugbox.cli.words import options, script

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the completion script of a shell.

    In bash: `source <(bugbox completion bash)`. Commands, options, puzzles and sessions are
    completed; the last two are looked up as they are at that moment.

    Args:
        shell: Which one.
    """
    say(script(shell, options()))
    return 0
