# SPDX-License-Identifier: Apache-2.0
"""Which arguments help: candidates from the report, boots in turn, what is learnt and kept."""

import random
from pathlib import Path
from typing import Any

import pytest

from bugbox.boottime import report, timeline
from bugbox.cli import tuning
from bugbox.errors import BootFailed
from bugbox.session.tune import KNOWN, Outcome, from_findings, judge, total

LOG = (Path(__file__).parents[1] / "data/boot/planted-both-initcall.log").read_text()
PLANTED = report.make("planted", timeline.build(LOG))


def test_the_planted_module_and_unit_are_candidates():
    found = {c.argument: c for c in from_findings(PLANTED.findings)}
    assert "module_blacklist=slow_probe" in found
    assert "systemd.mask=slow-unit.service" in found
    assert "765 ms" in found["module_blacklist=slow_probe"].why


def test_every_known_argument_has_a_reason_and_a_price():
    assert len({c.argument for c in KNOWN}) == len(KNOWN)
    assert all(c.why and c.price for c in KNOWN)


def machine(gains: dict[str, float], broken: tuple[str, ...] = ()) -> Any:
    """Boots that take 3 s and some noise, less what an argument brings."""
    dice = random.Random(7)
    booted: list[tuple[str, ...]] = []

    def boot(args: tuple[str, ...]) -> float:
        booted.append(args)
        if set(args) & set(broken):
            raise BootFailed("it did not come up")
        return 3.0 + dice.uniform(-0.1, 0.1) - sum(gains.get(arg, 0.0) for arg in args)

    return boot, booted


def test_what_helps_is_told_from_what_does_not():
    boot, booted = machine({"good": 0.7})
    good = tuning.race("good", 6, boot)
    assert good.verdict == "helps"
    assert good.gain == pytest.approx(0.7, abs=0.15)
    assert booted[:4] == [(), ("good",), ("good",), ()]
    assert tuning.race("idle", 6, boot).verdict == "no difference"


def test_what_breaks_the_boot_is_not_kept():
    boot, _ = machine({}, broken=("bad",))
    bad = tuning.race("bad", 4, boot)
    assert bad.verdict == "breaks the boot"
    assert total([bad, Outcome(argument="a", verdict="helps", gain=0.1)]) == ("a",)


def test_a_machine_that_never_boots_ends_it():
    def boot(args: tuple[str, ...]) -> float:
        raise BootFailed("never")

    with pytest.raises(BootFailed):
        tuning.race("x", 2, boot)


def test_the_largest_gain_comes_first():
    some = [Outcome(argument=a, verdict="helps", gain=g) for a, g in (("a", 0.1), ("b", 0.5))]
    assert total(some) == ("b", "a")
    assert judge("x", [1.0], None).verdict == "breaks the boot"


def test_it_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    """Both planted waits are found, in two sittings; nothing is tried twice."""
    monkeypatch.setenv("BUGBOX_HOME", str(tmp_path))
    (tmp_path / "cache").mkdir()
    boot, booted = machine(
        {"module_blacklist=slow_probe": 0.7, "systemd.mask=slow-unit.service": 0.7}
    )

    class Kernel:
        release, digest = "6.1", "ab" * 32

    clock = iter([0.0, *([1.0] * 3), *([1e9] * 99)])
    monkeypatch.setattr(tuning.store, "find_kernel", lambda home: Kernel)
    monkeypatch.setattr(tuning, "_look", lambda ask_for: PLANTED)
    monkeypatch.setattr(tuning, "boot_once", lambda ask_for, args: boot(args))
    monkeypatch.setattr(tuning.time, "monotonic", lambda: next(clock))
    tuning.run("debian-12", None, 5, 1, again=False, json=True)
    first = len(booted)
    assert first == 3 * 10
    monkeypatch.setattr(tuning.time, "monotonic", lambda: 0.0)
    capsys.readouterr()
    tuning.run("debian-12", None, 5, 1, again=False, json=True)
    everything = len(from_findings(PLANTED.findings)) + len(KNOWN)
    assert len(booted) == everything * 10
    told = tuning.jsonlib.loads(capsys.readouterr().out)
    assert sorted(told["keep"]) == ["module_blacklist=slow_probe", "systemd.mask=slow-unit.service"]
