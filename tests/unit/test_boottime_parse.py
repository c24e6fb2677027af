# SPDX-License-Identifier: Apache-2.0
"""Boot logs as people have them are understood, and nothing in one makes the reader stumble."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bugbox.boottime import initcall, kmsg, systemd
from bugbox.boottime.timeline import build

DATA = Path(__file__).parents[1] / "data" / "boot"
LOGS = sorted(DATA.glob("*.log"))


@pytest.mark.parametrize(
    ("raw", "seconds", "text", "source"),
    [
        ("[    0.142205] i8042: If AUX", 0.142205, "i8042: If AUX", "kernel"),
        ("<6>[   12.5000] x", 12.5, "x", "kernel"),
        ("[    0.100000][    T1] smp: up", 0.1, "smp: up", "kernel"),
        ("[    0.100000]   indented", 0.1, "  indented", "kernel"),
        ("\x1b[32m[    1.250000]\x1b[0m\x1b[33mvirt: \x1b[0m ok\r", 1.25, "virt:  ok", "kernel"),
        ("[    2.000000] systemd[1]: Started x.service.", 2.0, "systemd[1]: Started x.service.",
         "program"),
        ("Jan 29 09:14:10 vm kernel: [    0.5000] late", 0.5, "late", "kernel"),
        ("[    3.141593] vm kernel: pi", 3.141593, "pi", "kernel"),
        ("[    3.141593] vm systemd[1]: Reached target a.target.", 3.141593,
         "systemd[1]: Reached target a.target.", "program"),
        ("         Starting a.service...[    7.000001] eth0: up", 7.000001, "eth0: up", "kernel"),
        ("2021-01-29T09:14:10.315 [anonymous-instance:WARN:src/devices/i8042.rs:126] no", None,
         "2021-01-29T09:14:10.315 [anonymous-instance:WARN:src/devices/i8042.rs:126] no", "vmm"),
        ("[  OK  ] Started a.service.", None, "[  OK  ] Started a.service.", "other"),
        ("", None, "", "other"),
    ],
)  # fmt: skip
def test_a_line(raw, seconds, text, source):
    (line,) = kmsg.parse(raw or "\n")
    assert (line.seconds, line.text, line.source) == (seconds, text, source)


@given(st.text(max_size=300))
def test_any_text_keeps_its_lines(text):
    lines = kmsg.parse(text)
    assert len(lines) == text.count("\n") + (not text.endswith("\n") and text != "")
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    build(text)


@given(st.binary(max_size=4000), st.sampled_from(LOGS), st.integers(0, 2**32))
def test_a_damaged_log_keeps_its_lines(noise, path, seed):
    """Cut, doubled, overwritten: as a console that lost characters shows it."""
    whole = path.read_bytes()
    at = random.Random(seed).randrange(len(whole))
    part = whole[max(0, at - 2000) : at] + noise + whole[at : at + 2000]
    text = part.decode(errors="replace")
    lines = kmsg.parse(text)
    assert len(lines) == text.count("\n") + (not text.endswith("\n"))
    timeline = build(text)
    assert timeline.start <= timeline.end
    assert all(gap.seconds > 0 for gap in timeline.gaps)


@given(st.text(alphabet="[]. 0123456789ab\n<>:systemd@+", max_size=200))
def test_what_systemd_prints_may_be_anything(text):
    systemd.from_blame(text)
    systemd.from_chain(text)
    systemd.from_show(text)
    systemd.from_plot(text)
    systemd.from_log(kmsg.parse(text))
    initcall.collect(kmsg.parse(text))


def test_the_last_of_several_boots_is_taken():
    first = "[    0.000000] Linux version 6.1\n[   40.000000] reboot: Restarting\n"
    second = "[    0.000000] Linux version 6.1\n[    0.500000] two\n"
    lines, boots = kmsg.last_boot(kmsg.parse(first + second))
    assert boots == 2
    assert [line.number for line in lines] == [3, 4]
    assert build(first + second).end == 0.5


def test_a_log_without_its_beginning_is_one_boot():
    assert kmsg.last_boot(kmsg.parse("[   10.0000] a\n[   11.0000] b\n"))[1] == 1


def test_initcalls_of_a_real_log():
    calls = initcall.collect(kmsg.parse((DATA / "planted-both-initcall.log").read_text()))
    slow = [call for call in calls if call.name == "slow_probe_init"]
    assert [call.module for call in slow] == ["slow_probe"]
    assert 0.7 <= slow[0].seconds < 0.9
    assert slow[0].kind == "initcall"
    assert {call.kind for call in calls} == {"initcall", "probe"}


def test_units_of_a_real_log():
    startup = systemd.from_log(kmsg.parse((DATA / "planted-unit.log").read_text()))
    units = {unit.name: unit for unit in startup.units}
    assert 0.7 <= units["slow-unit.service"].seconds < 1.0
    assert startup.userspace is not None
    assert startup.finished is not None
    assert startup.userspace < units["slow-unit.service"].start < startup.finished


def test_a_failed_unit_and_one_that_never_ended():
    startup = systemd.from_log(
        kmsg.parse(
            "[ 1.0000] systemd[1]: Starting a.service - A...\n"
            "[ 1.5000] systemd[1]: Starting b.service - B...\n"
            "[ 3.0000] systemd[1]: Failed to start a.service - A.\n"
        )
    )
    a, b = startup.units
    assert (a.failed, a.seconds) == (True, 2.0)
    assert (b.failed, b.end, b.seconds) == (False, None, 0.0)


def test_what_systemctl_show_says():
    startup = systemd.from_show((DATA / "systemctl-show.txt").read_text())
    units = {unit.name: unit for unit in startup.units}
    # The same boot as systemd-analyze-blame.txt tells of.
    blame = systemd.from_blame((DATA / "systemd-analyze-blame.txt").read_text())
    assert blame["systemd-logind.service"] == 2.612
    for name, seconds in blame.items():
        if name in units and not name.endswith(".device"):
            assert units[name].seconds == pytest.approx(seconds, abs=0.002), name
    assert "systemd-udevd.service" in units["sysinit.target"].after


def test_our_chain_is_the_one_of_systemd_analyze():
    startup = systemd.from_show((DATA / "systemctl-show.txt").read_text())
    told = systemd.from_chain((DATA / "systemd-analyze-chain.txt").read_text())
    chain = systemd.critical(startup)
    assert len(told) > 8
    ends = (".slice", "-.mount")
    assert [u.name for u in told if not u.name.endswith(ends)][::-1] == [
        name for name in chain if not name.endswith(ends)
    ]
    assert startup.userspace is not None
    for unit in told[:5]:
        ours = next(u for u in startup.units if u.name == unit.name)
        assert ours.start - startup.userspace == pytest.approx(unit.start, abs=0.01), unit.name


def test_the_picture_of_systemd_analyze_plot():
    units = {u.name: u for u in systemd.from_plot((DATA / "systemd-analyze-plot.svg").read_text())}
    assert units["systemd-journald.service"].seconds == pytest.approx(3.884, abs=0.01)
    assert units["systemd-logind.service"].seconds == pytest.approx(2.612, abs=0.01)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 2.345s", 62.345), ("850ms", 0.85), ("3us", 3e-6), ("1h 1min 1s", 3661.0)],
)
def test_spans_of_time(text, seconds):
    assert systemd.from_blame(f"  {text} a.service") == {"a.service": pytest.approx(seconds)}
