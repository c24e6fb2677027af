#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# apply.sh WORK TARGET: bring the layer onto a disk that holds the base. Deletions go first.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 device=$2

if [ "${3:-}" != inside ]; then
    # The puzzle's disk is larger than the base's filesystem.
    mount -t ext4 "$device" "$work/target"
    resize2fs "$device" 2>&1 | tail -n 1
    unshare --mount -- /bin/bash "$0" "$work" "$device" inside
    umount "$work/target"
    umount "$work/scratch" "$work/base"
    sync
    exit
fi
# Numbers, not names: see archive.sh.
mount --bind /dev/null /etc/passwd
mount --bind /dev/null /etc/group

cd "$work/target"
xargs -0r rm -rf -- <"$work/scratch/deletions"
/bin/bash "${0%/*}/archive.sh" "$work" inside |
    tar --extract --file=- --preserve-permissions --same-owner --numeric-owner \
        --xattrs --xattrs-include='*' --acls --exclude='.wh.*' --delay-directory-restore
