#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# container-prepare.sh WORK: take back what the engine changed in the base, then list it to stdout.
#
# An engine empties /etc/hosts and its like to mount its own over them, and sets no times back. The
# image has what the base had in /.bugbox. Whoever runs this is root with CAP_SYS_ADMIN; build.sh is
# not (see container-run.sh).
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1

for tool in getfattr lsattr setpriv tar unshare xargs; do
    command -v "$tool" >/dev/null || { echo "the base image has no $tool" >&2; exit 1; }
done
for name in hosts hostname resolv.conf; do
    while mountpoint --quiet "/etc/$name"; do umount "/etc/$name"; done
done
for name in hosts hostname resolv.conf mtab; do
    rm -f "/etc/$name"
    if [ -e "/.bugbox/etc/$name" ] || [ -L "/.bugbox/etc/$name" ]; then
        cp -a "/.bugbox/etc/$name" "/etc/$name"
    fi
done
rm -f /.dockerenv
touch --reference=/.bugbox/etc /etc
touch --reference=/.bugbox/root /
# For each name: kind, inode, time of its last change (even of its mode), path.
find / -xdev -printf '%y %i %C@ %P\0'
# What changes from now on changes at another time.
touch "$work/start"
sleep 1.05
