#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# prepare.sh WORK BASE SCRATCH [TARGET]: lay a writable layer over the base, ready for a build, and
# have the disk at hand that the layer will be brought onto.
#
# Three directories make up what the build sees: the base (read-only), a helper between, which holds
# what a build needs and no layer should have, and the upper one, where every change ends up.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 base=$2 scratch=$3 target=${4:-}

# Give directories the owner, mode and time of the base's own: overlayfs shows the topmost one's.
like_base() {
    chown --reference="$work/base/$1" "$2"
    chmod --reference="$work/base/$1" "$2"
    touch --reference="$work/base/$1" "$2"
}

for tool in getfattr lsattr mkfs.ext4 resize2fs tar unshare xargs; do
    command -v "$tool" >/dev/null || { echo "the base image has no $tool" >&2; exit 1; }
done
# There is no udev in the build machine, which would make it; bash reads <(…) through it.
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
grep -qw overlay /proc/filesystems || modprobe overlay
ip link set lo up 2>/dev/null || true

# A machine that stands by has gone through all of this before, with nothing to build: see warm.sh.
if grep -qs " $work/base " /proc/mounts; then umount -R "$work/scratch" "$work/base"; fi
mkdir -p "$work/base" "$work/scratch" "$work/target"
mount -t ext4 -o ro "$base" "$work/base"
# Thrown away after the build: no journal, and nothing written that need not be.
mkfs.ext4 -q -F -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard "$scratch"
mount -t ext4 "$scratch" "$work/scratch"
cd "$work/scratch"
mkdir upper overlay-work helper merged puzzle tmp
chmod 1777 tmp

# A package that is installed must not start its service (policy-rc.d: 101 means "forbidden").
mkdir -p helper/puzzle helper/usr/sbin
printf '#!/bin/sh\nexit 101\n' >helper/usr/sbin/policy-rc.d
chmod 755 helper/usr/sbin/policy-rc.d
like_base usr/sbin helper/usr/sbin
like_base usr helper/usr
like_base . helper
like_base . upper

# redirect_dir and metacopy would leave half of a file's or a directory's contents in the base.
mount -t overlay overlay merged -o "lowerdir=$work/scratch/helper:$work/base" \
    -o "upperdir=$work/scratch/upper,workdir=$work/scratch/overlay-work" \
    -o redirect_dir=off,metacopy=off,index=off,xino=off

[ -n "$target" ] || exit 0
mount -t ext4 "$target" "$work/target"
# The puzzle's disk is larger than the base's filesystem.
resize2fs "$target" 2>&1 | tail -n 1
