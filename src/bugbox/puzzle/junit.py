# SPDX-License-Identifier: Apache-2.0
"""The result of `bugbox test` in JUnit's XML, which every CI server reads."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from bugbox.puzzle.matrix import Case, Sheet
from bugbox.puzzle.text import printable

__all__ = ["junit"]


def junit(sheets: Sequence[Sheet]) -> bytes:
    """Return the document: a suite a puzzle, a test case a case; its class names the stage."""
    root = ET.Element("testsuites", name="bugbox test")
    for sheet in sheets:
        suite = _suite(sheet)
        root.append(suite)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", f"{sum(sheet.seconds for sheet in sheets):.3f}")
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _suite(sheet: Sheet) -> ET.Element:
    suite = ET.Element("testsuite", name=sheet.puzzle, time=f"{sheet.seconds:.3f}")
    for case in sheet.cases:
        suite.append(_case(sheet.puzzle, case))
    missing = [stage for stage in sheet.shown() if not sheet.of(stage)]
    for stage in missing:
        why = sheet.why_skipped(stage) or "nothing to try"
        empty = Case(stage=stage, name=str(stage), status="skipped", message=why)
        suite.append(_case(sheet.puzzle, empty))
    suite.set("tests", str(len(suite)))
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(len(suite.findall(f"testcase/{kind}"))))
    return suite


def _case(puzzle: str, case: Case) -> ET.Element:
    element = ET.Element(
        "testcase",
        classname=f"{puzzle}.{case.stage}",
        name=_plain(case.name),
        time=f"{case.seconds:.3f}",
    )
    message = _plain(case.message)
    if case.status == "failed":
        failure = ET.SubElement(element, "failure", message=message)
        parts = (case.ran and f"ran: {case.ran}", case.output)
        failure.text = _plain("\n".join(part for part in parts if part))
    elif case.status in ("skipped", "interrupted"):
        ET.SubElement(element, "skipped", message=message or case.status)
    elif message:
        ET.SubElement(element, "system-out").text = message
    return element


def _plain(text: str) -> str:
    """XML has no control characters, escaped or not: show them as text."""
    return printable(text)
