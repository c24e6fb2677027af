# SPDX-License-Identifier: Apache-2.0
"""Names under which a puzzle asks for units that are off in the base image.

Words for what one wants, since one thing is often several units. The page of the base image tells
why each unit is off.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["SERVICES"]

#: Units by the name of what they are for. Every one of them has a rule in the base's recipe.
SERVICES: Mapping[str, tuple[str, ...]] = {
    "ssh": ("ssh.service",),
    "getty": ("getty@.service",),
    "network": ("systemd-networkd.service", "systemd-networkd-wait-online.service"),
    "firewall": ("nftables.service",),
    "remote-filesystems": ("remote-fs.target",),
    "sysstat": ("sysstat.service", "sysstat-collect.timer", "sysstat-summary.timer"),
    "apt-timers": ("apt-daily.timer", "apt-daily-upgrade.timer"),
    "maintenance-timers": (
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "man-db.timer",
    ),
    "random-seed": ("systemd-random-seed.service",),
    "journal-on-disk": ("systemd-journal-flush.service",),
    "user-manager": ("user@.service",),
    "fuse-control": ("sys-fs-fuse-connections.mount",),
    "configfs": ("sys-kernel-config.mount",),
    "huge-pages": ("dev-hugepages.mount",),
    "device-mapper": ("modprobe@dm_mod.service",),
    "loop": ("modprobe@loop.service",),
}
