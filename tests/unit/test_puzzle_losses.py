# SPDX-License-Identifier: Apache-2.0
"""What a build machine says about what no tar can carry, and what a stranger might say instead."""

from __future__ import annotations

import pytest

from bugbox.puzzle.losses import MAX_BYTES, losses


def test_each_loss_is_a_sentence_with_what_to_do() -> None:
    said = losses(b"socket\0./srv/sock\0flags:ia\0./etc/some file\0")
    assert said == [
        "/srv/sock is a socket, which no layer can carry: let the program that listens there make "
        "it, from a unit of its own or from boot.sh",
        "/etc/some file has chattr's +ia, which no layer can carry: set it in break.sh "
        "(chattr +ia /etc/some file)",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"socket",
        b"socket\0",
        b"socket\0./cut",
        b"other\0./x\0",
        b"flags:\x1b[2J\0./x\0",
    ],
)
def test_what_is_cut_or_unknown_says_nothing(answer: bytes) -> None:
    assert losses(answer) == []


def test_names_are_shown_safely_and_not_without_end() -> None:
    (said,) = losses(b"socket\0./a\x1b[2J\xff\nb\0")
    assert "\x1b" not in said and "\n" not in said
    assert len(losses(b"socket\0./x\0" * 100)) == 21
    assert losses(b"socket\0./x\0" * 100)[-1] == "… and 80 more that no layer can carry"
    assert len(losses(b"socket\0./x\0" * MAX_BYTES)) == 21
