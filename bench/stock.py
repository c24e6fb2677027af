# SPDX-License-Identifier: Apache-2.0
"""What a user would boot without us: stock Debian under QEMU's usual machine.

Debian's own kernel package and initramfs, systemd as it comes, q35, one CPU, software emulation.
*Ready* is the same point as ours: systemd says that nothing is left to start, and a command ran in
a login of an ordinary user.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.race import Missing
from bugbox.errors import BugboxError
from bugbox.host import proc
from bugbox.paths import Home
from bugbox.storage import file
from bugbox.storage.filesystem import make_ext4

__all__ = ["Stock"]

_MARK = b"STOCK-IS-READY"
_LIMIT = 300.0
_PACKAGES = (
    "linux-image-cloud-amd64,initramfs-tools,systemd-sysv,libpam-systemd,dbus,udev,"
    "openssh-server,sudo"
)
# A service of type simple is started, not waited for: it may wait for all the others.
_UNIT = f"""\
[Unit]
Description=Say when everything has started
[Service]
ExecStart=/bin/sh -c 'systemctl is-system-running --wait; runuser -l learner -c true && \
echo {_MARK.decode()} >/dev/ttyS0'
[Install]
WantedBy=multi-user.target
"""
_SET_UP = """\
set -eu
chroot "$1" useradd -m -s /bin/bash learner
printf '%s' "$UNIT" >"$1/etc/systemd/system/say-ready.service"
chroot "$1" systemctl -q enable say-ready.service
echo '/dev/vda / ext4 defaults 0 1' >"$1/etc/fstab"
rm -f "$1"/var/cache/apt/archives/*.deb
"""


class Stock:
    """Stock Debian 12 on QEMU's q35."""

    name = "stock"
    title = "stock Debian on QEMU q35"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise Missing("its image is made as root")
        self.folder = Home().root / "cache" / "bench-stock"
        try:
            if not (self.folder / "rootfs.ext4").exists():
                _build(self.folder)
        except BugboxError as error:
            raise Missing(f"its image could not be made: {error.message}") from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def once(self) -> dict[str, float]:
        """Boot it, wait for its word, throw it away."""
        begun = time.monotonic()
        with subprocess.Popen(
            _argv(self.folder), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as qemu:
            try:
                assert qemu.stdout is not None
                _wait(qemu.stdout.fileno(), begun + _LIMIT)
                return {"to ready": (time.monotonic() - begun) * 1000}
            finally:
                qemu.kill()


def _argv(folder: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-smp", "1", "-m", "512"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(folder / "vmlinuz"), "-initrd", str(folder / "initrd.img")),
        *("-append", "root=/dev/vda rw console=ttyS0"),
        *("-drive", f"file={folder / 'rootfs.ext4'},format=raw,if=virtio,snapshot=on"),
    ]


def _wait(console: int, until: float) -> None:
    seen = b""
    while _MARK not in seen:
        left = until - time.monotonic()
        if left <= 0 or not select.select([console], [], [], left)[0]:
            raise RuntimeError(
                f"stock Debian was not ready in time:\n{seen.decode('ascii', 'replace')}"
            )
        part = os.read(console, 65536)
        if not part:
            raise RuntimeError(f"stock Debian's QEMU ended:\n{seen.decode('ascii', 'replace')}")
        seen = seen[-4096:] + part


def _build(folder: Path) -> None:
    with file.workspace(Home().tmp, "bench-stock") as work:
        script = work / "set-up"
        script.write_text(f"#!/bin/sh\n{_SET_UP}")
        script.chmod(0o755)
        root = work / "root"
        argv = [
            *("mmdebstrap", "--quiet", "--mode=root", "--format=directory", "--variant=important"),
            *(f"--include={_PACKAGES}", f"--customize-hook={script}", "bookworm", str(root)),
        ]
        proc.run(argv, timeout=1800, env={"UNIT": _UNIT, "TMPDIR": str(work)})
        made = work / "made"
        made.mkdir()
        for name in ("vmlinuz", "initrd.img"):
            (made / name).write_bytes((root / name).resolve().read_bytes())
        make_ext4(
            made / "rootfs.ext4",
            root,
            size_bytes=2 << 30,
            label="stock",
            uuid="6b7f2c5e-5d7c-4c89-9d8f-1b2a3c4d5e6f",
            when=int(time.time()),
        )
        file.publish(made, folder)
