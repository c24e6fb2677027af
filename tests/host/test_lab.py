# SPDX-License-Identifier: Apache-2.0
"""A host in a machine: device mapper, KVM and loop devices for real, whatever this host has.

One lab for all of it. What needs a host's rights runs inside, from this very checkout.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FACTOR, ROOT, Bugbox

ALL = os.environ.get("BUGBOX_TEST_ALL") == "1"
MEMORY_MIB = 3072


def _reason() -> str:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) < (MEMORY_MIB + 1024) << 10:
            return f"the lab needs {MEMORY_MIB + 1024} MiB of free memory"
    if not ALL:
        return "boots a host in a machine, which takes many minutes: BUGBOX_TEST_ALL=1"
    if not Path("/usr/bin/python3.11").exists():
        return "the lab needs Debian 12's Python"
    return ""


pytestmark = [
    pytest.mark.host,
    pytest.mark.vm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(_reason()), reason=_reason()),
]


#: Minutes each, in an emulated machine on a busy host.
slow = pytest.mark.skipif(not ALL, reason="takes minutes: BUGBOX_TEST_ALL=1")


class Lab:
    """A running lab."""

    def __init__(self, bugbox: Bugbox, id: str) -> None:
        self.bugbox, self.id = bugbox, id

    def run(self, *argv: str, timeout: float = 600, ok: tuple[int, ...] = (0,)) -> str:
        """Run a command as root where this checkout lies."""
        place = [f"--chdir={ROOT}", f"PATH={ROOT}/.venv/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        inside = [*place, f"BUGBOX_TIMEOUT_FACTOR={10 * FACTOR}", f"BUGBOX_TEST_ALL={int(ALL)}"]
        done = self.bugbox(
            "shell", self.id, "--root", "--", "env", *inside, *argv, ok=ok, timeout=timeout
        )
        return done.stdout.decode()


@pytest.fixture(scope="module")
def lab(built: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("lab")
    home.parent.chmod(0o711)
    home.chmod(0o711)
    for name in ("images", "kernels", "layers", "cache"):
        (home / name).symlink_to(built.root / name)  # type: ignore[attr-defined]
    bugbox = Bugbox(home)
    id = str(bugbox.json("lab", "--keep", timeout=900)["id"])
    yield Lab(bugbox, id)
    bugbox.end()
    shutil.rmtree(bugbox.home.runtime, ignore_errors=True)


def test_it_is_a_host(lab: Lab) -> None:
    said = lab.run(
        "sh", "-c", "dmsetup version && nft list ruleset && ls /dev/loop-control /dev/kvm"
    )
    assert "/dev/kvm" in said and "/dev/loop-control" in said
    assert lab.run("bugbox", "--version").strip()


def passed(said: str, least: int) -> None:
    """Read pytest's last line: all passed, none was skipped, and so many at least."""
    last = said.strip().splitlines()[-1]
    assert "failed" not in last and "skipped" not in last, said
    assert int(last.split()[0]) >= least, said


def test_device_mapper(lab: Lab) -> None:
    passed(lab.run("python", "-m", "pytest", "-q", "tests/host/test_device_mapper.py"), 10)


@slow
def test_the_disk_contract_with_device_mapper(lab: Lab) -> None:
    contract = ["python", "-m", "pytest", "-q", "tests/contract/test_disk.py", "-k", "snapshot"]
    passed(lab.run(*contract, timeout=900), 12)


@slow
def test_the_disk_contract_with_reflinks(lab: Lab) -> None:
    contract = ["python", "-m", "pytest", "-q", "tests/contract/test_disk.py", "-k", "reflink"]
    passed(lab.run(*contract), 2)


@slow
def test_loop_devices_of_debians_kernel(lab: Lab) -> None:
    passed(lab.run("python", "-m", "pytest", "-q", "tests/host/test_storage_loop.py"), 15)


@slow
def test_a_session_on_a_snapshot_under_kvm(lab: Lab) -> None:
    """The prototype's way, whole: start, write, kill -9 of everything, and nothing is left."""
    start = ["bugbox", "start", "--image", "debian-12", "--disk", "snapshot", "--cold", "--json"]
    assert '"state": "ready"' in lab.run(*start, timeout=900)
    assert '"disk": "snapshot"' in lab.run("bugbox", "ps", "--json")
    lab.run("bugbox", "shell", "--root", "--", "sh", "-c", "echo kept >/root/it; sync")
    assert "-disk\t" in lab.run("dmsetup", "ls")
    base = lab.run("sh", "-c", "losetup --list --noheadings --output BACK-FILE | sort")
    assert len(base.splitlines()) == 2, base
    # Whoever keeps it dies, and so does its VMM; a keeper of the next command finds that out.
    lab.run("sh", "-c", KILL)
    lab.run("bugbox", "stop", "--all", "--yes")
    lab.run("bugbox", "gc")
    assert "No devices" in lab.run("dmsetup", "ls")
    assert lab.run("losetup", "--list") == ""
    assert lab.run("ls", "/var/lib/bugbox/sessions") == ""


#: The real program, which is in no distribution.
firecracker = pytest.mark.skipif(
    not (os.environ.get("BUGBOX_FIRECRACKER") and os.environ.get("BUGBOX_JAILER")),
    reason="BUGBOX_FIRECRACKER and BUGBOX_JAILER name no programs",
)
REAL = ("env", "BUGBOX_FIRECRACKER=/usr/local/bin/firecracker")


@slow
@firecracker
@pytest.mark.timeout(7200)
def test_the_driver_contract_on_firecracker(lab: Lab) -> None:
    contract = ["python", "-m", "pytest", "-q", "tests/contract/test_driver.py"]
    real = ["-k", "firecracker and not double"]
    passed(lab.run(*REAL, *contract, *real, timeout=6000), 6)


@slow
@firecracker
@pytest.mark.timeout(3600)
def test_a_session_on_firecracker(lab: Lab) -> None:
    start = ["bugbox", "start", "--image", "debian-12", "--driver", "firecracker", "--json"]
    said = lab.run(*start, "--disk", "snapshot", timeout=1800)
    assert '"state": "ready"' in said
    assert '"driver": "firecracker"' in lab.run("bugbox", "ps", "--json")
    assert lab.run("bugbox", "shell", "--root", "--", "cat", "/proc/cmdline").count("vsock") == 1
    assert "1900" in lab.run("sh", "-c", "ps axo uid,args | grep -- '[-]-api-sock /api'")
    # Whoever keeps it dies, and so does its warden; the jailed one is found by its user.
    lab.run("sh", "-c", KILL)
    lab.run("bugbox", "stop", "--all", "--yes")
    lab.run("bugbox", "gc")
    assert "No devices" in lab.run("dmsetup", "ls")
    assert lab.run("ls", "/var/lib/bugbox/jails") == ""
    assert lab.run("sh", "-c", "ps axo args | grep -c '[f]irecracker'", ok=(1,)) == "0\n"


#: By the state folder's own records, not by name.
KILL = """
sed -n 's/.*"pid": \\([0-9]*\\),/\\1/p' /var/lib/bugbox/sessions/*/record.json | xargs -r kill -9
for each in /proc/[0-9]*; do
    if tr '\\0' ' ' <"$each/cmdline" 2>/dev/null | grep -q 'bugbox.keeper\\|bugbox keeper'; then
        kill -9 "${each#/proc/}"
    fi
done
"""
