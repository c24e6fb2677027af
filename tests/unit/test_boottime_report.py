# SPDX-License-Identifier: Apache-2.0
"""The report of a boot: text, JSON, a picture, two boots side by side, and the command."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bugbox.boottime import report, svg, systemd, timeline
from bugbox.cli import boot
from bugbox.errors import UserError
from bugbox.session.boot import host_clock
from bugbox.session.record import Record

DATA = Path(__file__).parents[1] / "data" / "boot"
LOGS = sorted(DATA.glob("*.log"))
HOST = {
    "started": -2.2,
    "ready": 29.6,
    "stages": [["find", -2.2, -2.15], ["vmm", -2.1, -1.6], ["login", 27.0, 29.6]],
}
FACTS: dict[str, Any] = {
    "id": "read-me-3f9k",
    "dmesg": (DATA / "session-dmesg.log").read_text(),
    "systemd": (DATA / "systemctl-show.txt").read_text(),
    "milestones": {"lifeline": 5.3, "modules": 5.5, "root": 6.3, "init": 6.4},
    "timings_ms": {},
    "host": HOST,
}


def made(name: str) -> report.Report:
    return report.make(name, timeline.build((DATA / f"{name}.log").read_text()))


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_a_picture_is_whole_and_loads_nothing(path):
    found = report.make(path.stem, timeline.build(path.read_text()))
    text = svg.draw(found)
    root = ElementTree.fromstring(text)
    width = float(root.attrib["width"])
    for element in root.iter():
        assert "href" not in str(element.attrib)
        if element.tag.endswith("rect") and "x" in element.attrib:
            assert -1 <= float(element.attrib["x"]) <= width
            assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width + 1
    assert "url(http" not in text


def test_text_from_a_log_cannot_break_out_of_the_picture():
    evil = "[ 1.0000] a\n[ 9.0000] <script>&\"'\x1b[2J</text>\n"
    text = svg.draw(report.make("</svg><b>&", timeline.build(evil)))
    ElementTree.fromstring(text)
    assert "<script" not in text


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_text_and_json_say_the_same(path):
    found = report.make(path.stem, timeline.build(path.read_text()))
    values = report.as_json(found)
    json.dumps(values, allow_nan=False)
    text = report.as_text(found)
    assert all(len(line) <= 110 for line in text.splitlines())
    assert len(values["findings"]) == len(found.findings)
    for finding in values["findings"][:10]:
        if finding["fix"] and finding["critical"] is not False:
            assert finding["fix"].split()[0] in text
    assert sum(p["end"] - p["start"] for p in values["phases"]) <= values["seconds"] + 0.001


def test_two_boots():
    difference = report.compare(made("microvm-initcall"), made("planted-both-initcall"))
    new = [change for change in difference["changes"] if change["name"] == "slow_probe_init"]
    assert new == [{"name": "slow_probe_init", "a": None, "b": pytest.approx(0.765, abs=0.01)}]
    text = report.compare_text(difference)
    assert "slow_probe_init" in text
    same = report.compare(made("microvm"), made("microvm"))
    assert same["ratio"] == 1.0
    assert not same["changes"]


def test_the_command_on_a_file(tmp_path, capsys):
    target = tmp_path / "out.svg"
    assert boot.report(log=DATA / "prototype.log", svg=target, json=True) == 0
    values = json.loads(capsys.readouterr().out)
    assert [f["cause"] for f in values["findings"]] == ["atkbd-getid", "i8042-aux"]
    ElementTree.fromstring(target.read_text())


def test_a_file_needs_no_option(capsys):
    assert boot.report(str(DATA / "prototype.log"), json=True) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "prototype.log"


@pytest.mark.parametrize("name", ["microvm-quiet", "planted-unit-loglevel4"])
def test_a_quiet_log_is_called_one(name):
    text = report.as_text(made(name))
    assert "Note: only 1 of" in text
    assert "No wait" not in text


def test_the_command_on_a_session(monkeypatch, capsys):
    monkeypatch.setattr(boot, "ask", lambda verb, args: FACTS)
    assert boot.report("read-me", json=True) == 0
    values = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in values["phases"]] == [
        "vmm", "kernel", "initramfs", "init", "session",
    ]  # fmt: skip
    # The log's clock is 33 ms ahead of systemd's and the lifeline's.
    assert values["start"] == pytest.approx(-2.167, abs=0.001)
    assert values["end"] == pytest.approx(29.633, abs=0.001)
    assert values["critical_chain"][-1] == "multi-user.target"
    marks = [mark["name"] for mark in values["marks"]]
    assert marks[0] == "VMM started"
    assert marks[-1] == "ready"


def test_a_machine_that_stood_still_has_no_host_times(monkeypatch, capsys):
    late = {**FACTS, "host": {**HOST, "started": 40.0}}
    monkeypatch.setattr(boot, "ask", lambda verb, args: late)
    assert boot.report(json=True) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["start"] == 0.0
    assert "paused" in out.err


def test_comparing_a_session_with_a_file(monkeypatch, capsys):
    monkeypatch.setattr(boot, "ask", lambda verb, args: FACTS)
    boot.report(compare=(str(DATA / "microvm.log"), "read-me"))
    assert "read-me-3f9k" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        {"log": DATA / "none.log"},
        {"log": DATA / "systemd-analyze-blame.txt"},
        {"log": DATA / "prototype.log", "compare": ("a", "b")},
        {"id": "x", "log": DATA / "prototype.log"},
        {"log": DATA / "prototype.log", "svg": DATA / "no" / "folder.svg"},
    ],
)
def test_mistakes_are_said(args):
    id = args.pop("id", None)
    with pytest.raises(UserError):
        boot.report(id, **args)


def test_no_guest_can_write_to_the_terminal(monkeypatch, capsys):
    evil = {**FACTS, "dmesg": "[ 1.0000] a\n[ 9.0000] \x9b2J\x1b]0;x\x07evil\n", "host": None}
    monkeypatch.setattr(boot, "ask", lambda verb, args: evil)
    boot.report()
    assert not set(capsys.readouterr().out) & {"\x1b", "\x07", "\x9b"}


def test_the_host_s_clock_meets_the_guest_s():
    record = Record(
        id="x-1", puzzle="x", pid=7, pid_started=100_00,
        timings_ms={"total": 3, "find": 50, "disk": 50, "vmm": 400, "kernel": 1500, "login": 1000},
    )  # fmt: skip
    # The host's clock shows 104, the guest's 3.7: the guest's began at 100.3, the VMM at 100.
    told = host_clock(record, 3.7, 104.0)
    assert told["started"] == pytest.approx(-0.4)
    stages = {name: (start, end) for name, start, end in told["stages"]}
    assert stages["vmm"] == pytest.approx((-0.3, 0.1))
    assert told["ready"] == pytest.approx(2.6)


def test_systemd_s_own_times_are_better_than_the_log_s():
    startup = systemd.from_show(FACTS["systemd"])
    found = timeline.build(FACTS["dmesg"], startup=startup)
    units = {unit.name: unit for unit in found.units}
    assert units["systemd-logind.service"].seconds == pytest.approx(2.612, abs=0.002)
    # And all of it stands on the log's clock.
    logged = {unit.name: unit for unit in timeline.build(FACTS["dmesg"]).units}
    for name in ("systemd-journald.service", "dev-mqueue.mount", "sys-kernel-tracing.mount"):
        assert units[name].end == pytest.approx(logged[name].end, abs=0.001)
