# SPDX-License-Identifier: Apache-2.0
"""Each planted delay is found, none is invented; a cause is named only where the log shows it."""

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bugbox.boottime import kmsg
from bugbox.boottime.advice import Finding, examine
from bugbox.boottime.rule import PATTERNS, rules
from bugbox.boottime.timeline import build

DATA = Path(__file__).parents[1] / "data" / "boot"
LOGS = sorted(DATA.glob("*.log"))
TIMED = [path for path in LOGS if path.stem not in ("microvm-quiet", "planted-unit-loglevel4")]


def examined(name: str) -> list[Finding]:
    return examine(build((DATA / f"{name}.log").read_text()))


def caused(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.rule.id: finding for finding in findings if finding.rule}


def test_the_two_pauses_of_the_prototype():
    """The lines that its author published: both pauses explained, neither by its first line."""
    findings = examined("prototype")
    found = caused(findings)
    assert len(findings) == 2
    assert found["i8042-aux"].seconds == pytest.approx(0.282, abs=0.001)
    assert "i8042.noaux" in found["i8042-aux"].rule.fix
    assert found["atkbd-getid"].seconds == pytest.approx(0.494, abs=0.001)
    assert "i8042.dumbkbd" in found["atkbd-getid"].rule.fix
    assert "encrypted" not in found["atkbd-getid"].what


def test_a_delay_planted_in_a_module_without_initcall_debug():
    """It prints one line and then waits: a silence, named by nobody, with what to do next."""
    (slow,) = [
        f for f in examined("planted-module") if any("slow_probe" in t for _, t in f.evidence)
    ]
    assert slow.kind == "silence"
    assert slow.seconds >= 0.7
    assert slow.rule is None
    assert "unknown" in slow.advice


def test_a_delay_planted_in_a_module_with_initcall_debug():
    (slow,) = [f for f in examined("planted-both-initcall") if "slow_probe_init" in f.what]
    assert slow.kind == "initcall"
    assert slow.seconds == pytest.approx(0.765, abs=0.01)
    assert "slow_probe" in slow.advice


@pytest.mark.parametrize("name", ["planted-unit", "planted-both-initcall"])
def test_a_delay_planted_in_a_unit(name):
    (slow,) = [f for f in examined(name) if f.what == "slow-unit.service"]
    assert slow.kind == "unit"
    assert slow.seconds >= 0.7
    assert slow.rule is None


@pytest.mark.parametrize("name", ["microvm", "microvm-initcall", "session-dmesg", "stock-q35"])
def test_nothing_is_found_that_was_not_planted(name):
    said = [f.what + str(f.evidence) for f in examined(name)]
    assert not [text for text in said if "slow" in text]
    strangers = {"i8042-aux", "atkbd-getid", "raid6-benchmark", "root-wait", "udev-settle"}
    assert not strangers & caused(examined(name)).keys()


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_every_cause_stands_in_the_log(path):
    """A rule that speaks has its pattern in a line that the finding shows, or in its name."""
    text = path.read_text()
    timeline = build(text)
    for finding in examine(timeline):
        if finding.rule is None:
            assert finding.advice
            continue
        shown = [t for _, t in finding.evidence] + [finding.what]
        patterns = [p for name, p in finding.rule.patterns.items() if name != "near"]
        assert any(p.search(t) for p in patterns for t in shown), (path.stem, finding.rule.id)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_no_wait_is_longer_than_the_boot(path):
    timeline = build(path.read_text())
    for finding in examine(timeline):
        assert timeline.start - 0.001 <= finding.start <= finding.end
        assert finding.seconds <= timeline.seconds + 0.001


_STAMP = re.compile(r"\[ *(\d+\.\d{6})\]")


def later(text: str, from_line: int, seconds: float) -> str:
    """Return the log with everything from a line on happening later."""
    lines = text.split("\n")
    for number in range(from_line, len(lines)):
        lines[number] = _STAMP.sub(
            lambda m: f"[{float(m[1]) + seconds:12.6f}]", lines[number], count=1
        )
    return "\n".join(lines)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TIMED), st.floats(0.05, 0.95), st.floats(2.0, 20.0))
def test_a_delay_planted_anywhere_in_a_real_log_is_found(path, share, seconds):
    """Move the rest of the log: the hole is found where it was made, and everything else stays."""
    text = path.read_text()
    stamped = [x for x in kmsg.parse(text) if x.seconds is not None]
    # initcall_debug's own lines carry durations, which a moved line would belie.
    stamped = [x for x in stamped if "usecs" not in x.text]
    at = stamped[1 + int(share * (len(stamped) - 2))]
    planted = build(later(text, at.number - 1, seconds))
    if at.seconds + seconds > planted.end:
        return  # nobody waited for it: the boot was over
    if not any(gap.after.number == at.number for gap in planted.gaps):
        return  # written by a timer: it says nothing about what the boot waits for
    found = [
        f
        for f in examine(planted)
        # The clock of a kernel may fall back a little when it changes its source.
        if f.start <= at.seconds + 0.1 and f.end >= at.seconds + 0.7 * seconds
    ]
    assert found, at


def test_every_rule_is_whole():
    seen = set()
    for rule in rules():
        assert rule.id not in seen
        seen.add(rule.id)
        assert rule.patterns, rule.id
        for text in (rule.title, rule.fix, rule.price, rule.source):
            assert text and not text.endswith("."), rule.id
        assert rule.cause.endswith("."), rule.id
        assert rule.least < rule.most
    assert len(seen) >= 40
    assert {name for rule in rules() for name in rule.patterns} == set(PATTERNS)


# One real line, or one pair, for each rule: (first line, second line, seconds between).
EXAMPLES = {
    "i8042-aux": ("i8042: If AUX port is really absent please use the 'i8042.noaux' option",
                  "serio: i8042 KBD port at 0x60,0x64 irq 1"),
    "atkbd-getid": ("Key type encrypted registered",
                    "input: AT Raw Set 2 keyboard as /devices/platform/i8042/serio0/input/input0"),
    "i8042-absent": ("x", "i8042: No controller found"),
    "tsc-calibration": ("x", "tsc: Detected 2596.096 MHz processor"),
    "delay-loop": ("x", "Calibrating delay loop... 5192.24 BogoMIPS (lpj=10384480)"),
    "lapic-calibration": ("x", "smpboot: CPU0: AMD QEMU TCG CPU version 2.5+ (family: 0xf)"),
    "timer-check": ("x", "..TIMER: vector=0x30 apic1=0 pin1=2 apic2=-1 pin2=-1"),
    "raid6-benchmark": ("x", "raid6: avx2x4   gen()  8123 MB/s"),
    "xor-benchmark": ("x", "xor: measuring software checksum speed"),
    "crypto-self-tests": ("x", "alg: self-tests for CTR-KDF (hmac(sha256)) passed"),
    "ftrace-records": ("ftrace: allocating 37697 entries in 148 pages",
                       "ftrace: allocated 148 pages with 3 groups"),
    "alternatives": ("x", "Freeing SMP alternatives memory: 36K"),
    "memory-map": ("x", "Zone ranges:"),
    "huge-pages-reserved": ("x", "HugeTLB: registered 2.00 MiB page size, pre-allocated 64 pages"),
    "initramfs-unpack": ("Trying to unpack rootfs image as initramfs...",
                         "Freeing initrd memory: 14960K"),
    "parallel-work-awaited": ("x", "Freeing unused kernel image (initmem) memory: 2612K"),
    "write-protection": ("x", "x86/mm: Checked W+X mappings: passed, no W+X pages found."),
    "acpi-tables": ("x", "ACPI: Interpreter enabled"),
    "pci-scan": ("x", "pci 0000:00:01.0: [1af4:1001] type 00 class 0x010000"),
    "ata-probe": ("x", "ata3: SATA link down (SStatus 0 SControl 300)"),
    "floppy": ("x", "floppy0: no floppy controllers found"),
    "tpm-timeout": ("x", "tpm_tis 00:05: operation timed out"),
    "firmware-file": ("x", "firmware_class: Direct firmware load for a.bin failed with error -2"),
    "usb-enumeration": ("x", "usb 1-1: new high-speed USB device number 2 using ehci-pci"),
    "framebuffer-console": ("x", "Console: switching to colour frame buffer device 128x48"),
    "processors": ("smp: Bringing up secondary CPUs ...", "smp: Brought up 1 node, 4 CPUs"),
    "ip-autoconfig": ("x", "IP-Config: Complete:"),
    "root-wait": ("Waiting for root device /dev/sda1...", "sd 0:0:0:0: [sda] Attached SCSI disk"),
    "journal-replay": ("x", "EXT4-fs (vda): recovery complete"),
    "random-seed": ("random: systemd: uninitialized urandom read (16 bytes read)",
                    "systemd[1]: Finished systemd-random-seed.service - Load/Save Random Seed."),
    "systemd-starts": ("Run /sbin/init as init process", "systemd[1]: Inserted module 'autofs4'"),
    "systemd-reads-units": ("x", "systemd[1]: Queued start job for default target a.target."),
}  # fmt: skip


@pytest.mark.parametrize("id", EXAMPLES)
def test_a_rule_speaks_for_its_line(id):
    rule = next(rule for rule in rules() if rule.id == id)
    seconds = min(max(rule.least, 0.45), rule.most) + 0.01
    first, second = EXAMPLES[id]
    log = f"[    1.000000] {first}\n[{1 + seconds:12.6f}] {second}\n[{1.02 + seconds:12.6f}] y\n"
    assert id in caused(examine(build(log)))


@pytest.mark.parametrize("rule", [r for r in rules() if r.unit], ids=lambda r: r.id)
def test_a_rule_about_a_unit_speaks_for_it(rule):
    name = {
        "device-timeout": "dev-ttyS0.device", "fsck": "systemd-fsck-root.service",
        "wait-online": "systemd-networkd-wait-online.service", "ifupdown": "networking.service",
        "cloud-init": "cloud-init-local.service", "random-seed-unit": "systemd-random-seed.service",
        "journal-flush": "systemd-journal-flush.service", "e2scrub": "e2scrub_reap.service",
        "apt-daily": "apt-daily.service", "lvm": "lvm2-monitor.service",
        "plymouth": "plymouth-quit-wait.service", "snapd": "snap-core20-1234.mount",
        "apparmor": "apparmor.service", "ssh-keys": "bugbox-ssh-keys.service",
        "swap": "dphys-swapfile.service", "modem-manager": "ModemManager.service",
        "docker": "docker.service", "module-units": "modprobe@drm.service",
        "udev-settle": "systemd-udev-settle.service",
    }[rule.id]  # fmt: skip
    begin = "Expecting device" if name.endswith(".device") else "Starting"
    end = "Found device" if name.endswith(".device") else "Finished"
    log = (
        f"[    1.000000] systemd[1]: {begin} {name} - X...\n"
        f"[   11.000000] systemd[1]: {end} {name} - X.\n"
        "[   11.100000] systemd[1]: Startup finished in 1s.\n"
    )
    found = caused(examine(build(log)))
    assert found[rule.id].seconds == 10.0


def test_initcalls_that_test_are_named():
    for id, name in (("jitter-entropy", "jent_mod_init"), ("self-test-initcall", "test_bpf_init")):
        log = f"[ 2.0000] initcall {name}+0x0/0x10 returned 0 after 900000 usecs\n[ 2.1000] x\n"
        assert id in caused(examine(build(log)))


def test_timers_own_lines_end_no_silence():
    """The refined clock rate is printed by a timer; the hole around it is one hole."""
    log = "[ 1.0000] a\n[ 1.5000] tsc: Refined TSC clocksource calibration: 1 MHz\n[ 2.0000] b\n"
    (finding,) = examine(build(log))
    assert (finding.start, finding.end) == (1.0, 2.0)


def test_a_hostile_log_costs_little():
    """Long lines, and more units and initcalls than any machine has."""
    lines = ["[    1.000000] " + "tpm" * 200_000]
    lines += [
        f"[{2 + n / 1000:12.6f}] systemd[1]: Starting u{n}.service - U...\n"
        f"[{50 + n / 1000:12.6f}] systemd[1]: Started u{n}.service - U.\n"
        f"[{50 + n / 1000:12.6f}] initcall f{n}+0x0/0x1 returned 0 after 9000000 usecs"
        for n in range(5000)
    ]
    begun = time.process_time()
    assert len(examine(build("\n".join(lines)))) <= 40
    assert time.process_time() - begun < 30
