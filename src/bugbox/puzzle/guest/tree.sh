#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tree.sh: list every file of the disks, `FACTS|PATH` a line. Run by the injected shell and tools.
#
# Left out: what lies in memory for a boot only (/run, /tmp, /dev), and the journal.
while read -r _ point kind _; do
    case $kind in
    ext[234] | xfs | btrfs | vfat | tmpfs) ;;
    *) continue ;;
    esac
    point=$(printf '%b' "$point")
    case $point in
    /run | /run/* | /tmp | /tmp/* | /var/tmp/* | /dev | /dev/* | /sys/* | /proc/*) continue ;;
    esac
    # The number of links of /proc is that of the processes.
    find "$point" -xdev \( -path /run -o -path /tmp -o -path /dev -o -path /proc -o -path /sys \
        -o -path /var/log/journal \) -prune -o -print0
done </proc/mounts | xargs -0 stat -c '%i %f %h %u %g %s %y %z|%n'
# A file that ends while it is listed is no failure of the list.
exit 0
