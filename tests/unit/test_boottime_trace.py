# SPDX-License-Identifier: Apache-2.0
"""The picture of one start."""

import re
import xml.etree.ElementTree as tree

from bugbox.boottime.trace import draw
from bugbox.events import span, tracing

SVG = "{http://www.w3.org/2000/svg}"


def test_each_span_is_a_bar_where_it_was() -> None:
    spans = [
        {"name": "late", "begin": 10.5, "end": 11.0},
        {"name": "whole <&>", "begin": 10.0, "end": 11.0},
        {"name": "early", "begin": 10.0, "end": 10.25},
    ]
    root = tree.fromstring(draw("one", spans))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts[0] == "one: 1.00 s"
    assert texts[1::2] == ["whole <&>", "early", "late"]
    assert texts[2::2] == ["1.00 s", "250.0 ms", "500.0 ms"]
    bars = list(root.iter(f"{SVG}rect"))[1:]
    whole, early, late = [(float(b.get("x", 0)), float(b.get("width", 0))) for b in bars]
    assert early[0] == whole[0]
    assert round(early[1] / whole[1], 2) == 0.25
    assert round((late[0] - whole[0]) / whole[1], 2) == 0.5


def test_an_empty_trace_is_a_picture_too() -> None:
    assert re.match(r"<svg", draw("none", []))


def test_spans_are_kept_only_while_somebody_traces() -> None:
    with span("nobody"):
        pass
    with tracing() as spans:
        with span("outer"), span("inner"):
            pass
    assert [name for name, _, _ in spans] == ["inner", "outer"]
    (_, begin, end), (_, first, last) = spans
    assert first <= begin <= end <= last
