#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# unpack.sh WORK: bring a layer's tar onto the disk at WORK/target, which holds the base.
#
# WORK/scratch has layer.tar and three lists, each name followed by a NUL: deletions (what the layer
# hides), folders and others (what it holds). The host has read the tar before and vouches for its
# rules: no name leads out of the root, or through something that is no directory.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1

if [ "${2:-}" != inside ]; then
    umount "$work/scratch/merged"
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
# tar does not put a file in a directory's place, nor a directory in a file's.
while IFS= read -r -d '' path; do
    if [ -d "$path" ] && [ ! -L "$path" ]; then rm -rf -- "$path"; fi
done <"$work/scratch/others"
while IFS= read -r -d '' path; do
    if [ ! -d "$path" ] || [ -L "$path" ]; then rm -f -- "$path"; fi
done <"$work/scratch/folders"
tar --extract --file="$work/scratch/layer.tar" --preserve-permissions --same-owner --numeric-owner \
    --xattrs --xattrs-include='*' --acls --exclude='.wh.*' --delay-directory-restore
