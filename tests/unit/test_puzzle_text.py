# SPDX-License-Identifier: Apache-2.0
"""Nothing that a guest or an author wrote reaches a terminal as a command."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.puzzle.markdown import render
from bugbox.puzzle.quantity import format_duration, format_size, parse_duration, parse_size
from bugbox.puzzle.text import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("ä € 漢 🙂", "ä € 漢 🙂"),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("a\rb", "a\\x0db"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        (b"\xff\xc3\xa4", "\\xffä"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2028x", "\\u2028x"),
        ("\udcff\ud800", "\\xff\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_printable(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


@given(st.one_of(st.binary(), st.text()))
def test_printable_leaves_no_control_character(text: str | bytes) -> None:
    for char in printable(text):
        assert char in "\n\t\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
    assert "\n" not in one_line(text) and len(one_line(text)) <= 300


def test_one_line_is_bounded() -> None:
    assert one_line("a\n b\tc") == "a b c"
    assert one_line(b"\xff" * 9999, 10) == "\\xff\\xff\\…"
    assert len(one_line("\n" * 100_000 + "x")) <= 300


MARKDOWN = """\
# The **title**

One line
and another `with **code**` and a [link](https://example.org/x).

1. first
   goes on
2. second
   - inside

> said
> by me

```sh
$ ls   -l
```
    after
"""


def test_markdown_as_plain_text() -> None:
    assert render(MARKDOWN, 40) == (
        "The title\n\n"
        "One line and another `with **code**` and\na link (https://example.org/x).\n\n"
        "1. first goes on\n2. second\n   - inside\n\n"
        "  | said by me\n\n"
        "    $ ls   -l\n"
        "    after\n"
    )


def test_markdown_in_colour_and_escaped() -> None:
    shown = render("# Head\n\nA **strong** word \x1b[2J\n", colour=True)
    assert "\x1b[1mHead\x1b[0m" in shown and "\x1b[1mstrong\x1b[0m" in shown
    assert "\\x1b[2J" in shown and "\x1b[2J" not in shown


@given(st.text("ab #*`>-1.\n[]()~ \x1b"), st.integers(-3, 60))
def test_markdown_never_fails_and_never_sends_a_control_byte(text: str, width: int) -> None:
    shown = render(text, width)
    assert shown.endswith("\n") and "\x1b" not in shown
    letters = [char for char in text if char in "ab"]
    assert [char for char in shown.replace("\\x1b", "") if char in "ab"] == letters


@pytest.mark.parametrize(
    ("text", "size"), [("1KiB", 1024), ("256MiB", 256 << 20), ("2GiB", 2 << 30)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert format_size(size) == text


@pytest.mark.parametrize("text", ["", "1", "1MB", "1 MiB", "-1MiB", "1.5MiB", "MiB", "1MiB2MiB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("500ms", 0.5, "500ms"),
        ("10s", 10, "10s"),
        ("90s", 90, "1m30s"),
        ("1h5m", 3900, "1h5m"),
        ("1.5m", 90, "1m30s"),
        ("2d", 172800, "2d"),
    ],
)
def test_durations(text: str, seconds: float, written: str) -> None:
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == written


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "-1s", "1S", "1m 2s", "1e3s", "10sx"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse_duration(text)
