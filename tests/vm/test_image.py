# SPDX-License-Identifier: Apache-2.0
"""The base image in a real machine: one boot, many questions."""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bugbox.config import load
from bugbox.image import store
from bugbox.machine.lifeline.shell import Lifeline
from bugbox.machine.qemu.driver import QemuDriver
from bugbox.machine.spec import Drive, Kernel, MachineSpec
from bugbox.paths import Home
from bugbox.storage.disk import create_overlay

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

FACTOR = float(os.environ.get("BUGBOX_TIMEOUT_FACTOR", "1"))

#: What is asked, by name: run by bash as root once the machine is up. The order matters a little:
#: what changes the machine comes last.
QUESTIONS = {
    "state": "systemctl is-system-running",
    "jobs": "systemctl list-jobs --no-legend",
    "failed": "systemctl --failed --no-legend",
    "enabled": "systemctl is-enabled ssh.service apt-daily.timer serial-getty@ttyS0.service",
    "running": "systemctl list-units --type=service --state=running --no-legend --plain",
    "machine-id": "cat /etc/machine-id; stat -c %F /etc/machine-id",
    "keys": "ls /etc/ssh/ssh_host_* ~learner/.ssh 2>&1; ls /var/lib/systemd/random-seed 2>&1",
    "shadow": "grep -E '^(root|learner):' /etc/shadow | cut -d: -f1,2",
    "journal": "journalctl --no-pager -b | wc -l; ls -d /var/log/journal 2>&1",
    "mounts": "findmnt -n -o FSTYPE /sys/kernel/debug; findmnt -n -o FSTYPE /sys/kernel/tracing",
    "size": "findmnt -bno SIZE /",
    "links": "ip -o link; getent hosts bugbox; cat /etc/hostname; cat /etc/resolv.conf",
    "capabilities": "getcap /usr/bin/ping; stat -c %a:%U /usr/bin/sudo",
    "ping": "runuser -u learner -- ping -c 1 127.0.0.1",
    "sudo": "runuser -u learner -- sudo -n id -u",
    "path": "su -l learner -c 'echo $PATH; echo $LANG; which getcap tcpdump'",
    "acl": "cd /tmp && touch f && setfacl -m u:learner:--- f && getfacl -c f",
    "modules": "modprobe dm_mod && nft list ruleset && losetup -f && ls -l /dev/net/tun /dev/fuse",
    "apt": "apt-get -s install strace; dpkg --audit; ls /var/lib/apt/lists",
    "man": "man -k getfacl; man -P cat ls | head -n 3; locale 2>&1",
    "login": "script -qec 'login -f learner' /dev/null <<< $'loginctl --no-legend\\nid\\nexit'",
    "timers": "systemctl list-timers --no-legend; systemd-run -q --on-active=1 touch /run/ticked; "
    "for i in $(seq 100); do [ -e /run/ticked ] && break; sleep 0.2; done; ls /run/ticked",
    "ssh": "systemctl start ssh && runuser -l learner -c "
    "'script -qec \"ssh -tt localhost tty\" /dev/null' < /dev/null; ls /etc/ssh/ssh_host_*",
    "completion": "script -qec 'login -f learner' /dev/null <<< $'systemctl is-sys\\t\\nexit'",
    "rename": "hostnamectl hostname other; getent hosts other | head -n 1; sudo -n true",
    "end": "systemctl --failed --no-legend; systemctl list-jobs --no-legend",
}


@pytest.fixture(scope="module")
def answers(built: Home) -> Iterator[dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="bb-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield asyncio.run(ask(built, folder))
    finally:
        shutil.rmtree(folder)


async def ask(home: Home, folder: Path) -> dict[str, str]:
    kernel, base = store.find_kernel(home), store.find_base(home)
    assert kernel is not None
    assert base is not None
    initrd = store.find_initrd(home, kernel)
    assert initrd is not None
    disk = folder / "disk.qcow2"
    create_overlay(disk, backing=base.rootfs, backing_format="raw", size_bytes=2 << 30)
    spec = MachineSpec(
        id="image",
        kernel=Kernel(vmlinux=kernel.vmlinux, initrd=initrd, release=kernel.release),
        drives=(
            Drive(
                id="root",
                path=disk,
                format="qcow2",
                backing=Drive(id="base", path=base.rootfs, format="raw", read_only=True),
            ),
        ),
        root=folder,
        runtime=folder,
        boot_timeout=120 * FACTOR,
    )
    machine = await QemuDriver(home, load(home)).boot(spec, lambda process: None)
    try:
        await machine.wait_lifeline()
        await up(machine.lifeline)
        found = {}
        for name, line in QUESTIONS.items():
            done = await machine.lifeline.run(
                ["/bin/bash", "-c", f"{line}\n"], user="root", timeout=120 * FACTOR
            )
            found[name] = (done.stdout + done.stderr).decode().replace("\r", "")
        return found
    finally:
        await machine.stop(0)


async def up(lifeline: Lifeline) -> None:
    wait = (
        "until [ -S /run/systemd/private ]; do sleep 0.1; done; systemctl is-system-running --wait"
    )
    done = await lifeline.run(["/bin/sh", "-c", wait], timeout=120 * FACTOR)
    assert done.stdout.decode().strip() == "running", done


def test_it_runs_and_nothing_failed_or_waits(answers):
    assert answers["state"].strip() == "running"
    assert answers["jobs"].strip() in ("", "No jobs running.")
    assert answers["failed"] == ""


def test_still_so_after_all_that_was_asked(answers):
    assert answers["end"].replace("No jobs running.", "").strip() == ""


def test_only_what_a_login_needs_is_running(answers):
    running = {line.split()[0] for line in answers["running"].splitlines()}
    running -= {"bugbox-lifeline.service"}
    assert running == {
        "dbus.service",
        "systemd-journald.service",
        "systemd-logind.service",
        "systemd-udevd.service",
    }
    assert answers["enabled"].split() == ["disabled"] * 3


def test_nothing_secret_or_personal_was_in_the_image(answers):
    machine_id, kind = answers["machine-id"].splitlines()
    assert re.fullmatch(r"[0-9a-f]{32}", machine_id)
    assert kind == "regular file"
    assert answers["keys"].count("No such file") == 3
    root, learner = answers["shadow"].splitlines()
    assert re.fullmatch(r"root:[!*]+", root)
    assert re.fullmatch(r"learner:!+", learner)


def test_the_journal_is_in_memory(answers):
    lines, folder = answers["journal"].splitlines()
    assert int(lines) > 50
    assert "No such file" in folder


def test_debugfs_and_tracefs_are_mounted(answers):
    assert answers["mounts"].split() == ["debugfs", "tracefs"]


def test_the_filesystem_grew_to_its_disk(answers):
    assert int(answers["size"]) > 1.8 * (1 << 30)


def test_no_network_but_a_name_for_itself(answers):
    assert re.findall(r"^\d+: (\w+):", answers["links"], re.MULTILINE) == ["lo"]
    assert "LOWER_UP" in answers["links"]
    assert "bugbox" in answers["links"]
    assert "nameserver" in answers["links"]
    assert "other" in answers["rename"]
    assert "unable to resolve" not in answers["rename"]


def test_capabilities_and_setuid_survived_the_build(answers):
    assert answers["capabilities"] == "/usr/bin/ping cap_net_raw=ep\n4755:root\n"
    assert "1 received" in answers["ping"]
    assert answers["sudo"].strip() == "0"


def test_acls_work(answers):
    assert "user:learner:---" in answers["acl"]


def test_the_learners_environment(answers):
    path, lang, getcap, tcpdump = answers["path"].splitlines()
    assert path.split(":")[-1] == "/run/bugbox/bin"
    assert lang == "C.UTF-8"
    assert getcap.endswith("sbin/getcap")
    assert tcpdump.endswith("bin/tcpdump")


def test_modules_of_the_running_kernel_are_there(answers):
    assert "/dev/loop0" in answers["modules"]
    assert answers["modules"].count("crw-rw-rw-") == 2
    assert "FATAL" not in answers["modules"]


def test_apt_is_whole(answers):
    assert "strace is already the newest version" in answers["apt"]
    assert "error" not in answers["apt"].lower()


def test_man_pages_are_there(answers):
    assert "getfacl (1)" in answers["man"]
    assert "LS(1)" in answers["man"]
    assert "Cannot set" not in answers["man"]


def test_a_login_is_a_session_of_logind(answers):
    assert re.search(r"\d+ 1000 learner +pts/\d", answers["login"])
    assert "uid=1000(learner)" in answers["login"]
    assert "sudo" in answers["login"]


def test_timers_work(answers):
    assert "systemd-tmpfiles-clean.timer" in answers["timers"]
    assert answers["timers"].strip().endswith("/run/ticked")


def test_ssh_works_when_it_is_turned_on(answers):
    assert re.search(r"^\W*/dev/pts/\d+$", answers["ssh"], re.MULTILINE)
    assert "/etc/ssh/ssh_host_ed25519_key.pub" in answers["ssh"]


def test_completion_comes_with_the_first_tab(answers):
    assert "command not found" not in answers["completion"]
    assert re.search(r"^running$", answers["completion"], re.MULTILINE)
