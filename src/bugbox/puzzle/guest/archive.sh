#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# archive.sh WORK: write the layer's tar to stdout, the same bytes for the same contents.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1

if [ "${2:-}" != inside ]; then
    # In a PID namespace of its own tar is always process 1: its number is part of the name under
    # which a file with holes is kept. What has reached the disk shows its holes.
    sync --file-system "$work/scratch"
    exec unshare --mount --pid --fork --kill-child=KILL -- /bin/bash "$0" "$work" inside
fi
# GNU tar 1.34 puts user names into access control lists even with --numeric-owner. A name means
# somebody else on another machine, or nobody at all: so here nobody has one.
mount --bind /dev/null /etc/passwd
mount --bind /dev/null /etc/group

exec tar --create --file=- --directory="$work/scratch/upper" \
    --format=posix --sparse --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
    --xattrs --xattrs-include='*' --xattrs-exclude='trusted.overlay.*' --acls \
    --numeric-owner --sort=name --warning=no-file-ignored .
