# SPDX-License-Identifier: Apache-2.0
"""YAML with places, and none of its traps."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bugbox.puzzle.yaml_source import MAX_BYTES, parse

FILE = Path("/nowhere/puzzle.yaml")

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 108)
)


def trouble(raw: bytes) -> str:
    source = parse(raw, FILE)
    assert len(source.problems) == 1
    return str(source.problems[0]).removeprefix(f"{FILE}:")


def test_data_and_places() -> None:
    source = parse(b"a: 1\nlist:\n  - x: yes\n    y: 1.10\nnone:\n", FILE)
    assert source.data == {"a": 1, "list": [{"x": "yes", "y": 1.1}], "none": None}
    assert source.keys["list", 0, "y"] == (4, 5)
    assert source.values["list", 0, "y"] == (4, 8)
    assert source.written["list", 0, "y"] == "1.10"
    assert source.values["none",] == (5, 1)


def test_scalars_are_those_of_yaml_1_2() -> None:
    raw = b"a: 0123\nb: 0x1f\nc: 1_000\nd: .inf\ne: ~\nf: on\ng: '1'\nh: true\ni: 0o17\nj: -5\n"
    found = parse(raw, FILE).data
    assert [found[key] for key in "abcdefghij"] == [
        *(123, 31, 1000, float("inf"), None, "on", "1", True, 15, -5)
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a: &x 1\n", "1:4: anchors and aliases (& and *) are not used here; write it out"),
        (b"a: *x\n", "1:4: anchors and aliases (& and *) are not used here; write it out"),
        (BOMB, "1:4: anchors and aliases (& and *) are not used here; write it out"),
        (b"a: !!python/object/apply:os.system [id]\n", "1:4: tags (!) are not used here"),
        (b"a: 1\nb: 2\na: 3\n", "3:1: a: given twice; the first is in line 1"),
        (b"a:\n  x: 1\n  x: 2\n", "3:3: a.x: given twice; the first is in line 2"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document (---) in the file"),
        (b"a:\n\tb: 1\n", "2:1: a tab; YAML is indented with spaces only"),
        (b"\ta: 1\n", "1:1: a tab; YAML is indented with spaces only"),
        (b"a: x\nb: \xff\n", "2:4: not UTF-8: byte 0xff; save the file as UTF-8"),
        (b"\xff\xfea\0:\0", "1:1: not UTF-8: byte 0xff; save the file as UTF-8"),
        (b"a: \x01\n", "1:4: the character U+0001 may not stand in YAML"),
        (b"a: 1\nb: \x00\n", "2:4: the character U+0000 may not stand in YAML"),
        (b"[a]: 1\n", "1:1: a key must be a word"),
        (b"[" * 60_000, "1:13: nested more than 12 deep"),
        (b"- " * 30_000, "1:25: nested more than 12 deep"),
        (b"{a: " * 9_000, "1:49: nested more than 12 deep"),
        (b"a: b\n" * (1 << 18), f"1:1: larger than {MAX_BYTES >> 10} KiB; long texts belong in"),
    ],
)
def test_what_is_refused(raw: bytes, expected: str) -> None:
    begun = time.monotonic()
    assert trouble(raw).startswith(expected)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("raw", [b"a: [", b"a: 'x", b"a: b: c", b"a\nb: 1\n", b"%YAML 3.0\n---\n"])
def test_a_syntax_error_has_a_place(raw: bytes) -> None:
    assert trouble(raw)[0].isdigit()
    assert "not valid YAML" in trouble(raw)


def test_a_merge_key_is_just_a_key() -> None:
    assert parse(b"<<: {a: 1}\n", FILE).data == {"<<": {"a": 1}}


def test_a_byte_order_mark_is_no_trouble() -> None:
    assert parse(b"\xef\xbb\xbfa: 1\n", FILE).data == {"a": 1}


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("ab:- \n\t'\"[]{}#&*!|>%?,0.1~\0\x85", max_size=60).map(str.encode),
    )
)
def test_any_bytes_are_data_or_a_problem(raw: bytes) -> None:
    source = parse(raw, FILE)
    for each in source.problems:
        assert each.line >= 1 and each.column >= 1
        assert str(each).isprintable()
