#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# apply.sh WORK: bring the layer onto the disk at WORK/target, which holds the base. Deletions go first.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1

if [ "${2:-}" != inside ]; then
    unshare --mount -- /bin/bash "$0" "$work" inside
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
