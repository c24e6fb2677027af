#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh WORK EPOCH: run the puzzle's build.sh as root in the merged tree, as in a Dockerfile.
#
# All mounts for it are in a namespace of their own, and all its processes in another: when
# build.sh ends, whatever it has left running ends too, and nothing stays mounted.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 epoch=$2

if [ "${3:-}" != inside ]; then
    cd "$work/scratch"
    # Whatever is newer than this file was written by the build. Some programs (useradd) cut times
    # down to whole seconds: so it is older than the second in which it is made.
    touch start
    touch --date="@$(($(stat -c %Y start) - 1)).999999999" start
    tar --extract --file=inputs.tar --preserve-permissions --numeric-owner --directory=puzzle
    rm inputs.tar
    exec unshare --mount --pid --fork --kill-child=KILL -- /bin/bash "$0" "$work" "$epoch" inside
fi

root=$work/scratch/merged
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -m 1777 "$root/run/lock"
mount --bind "$work/scratch/tmp" "$root/tmp"
mount --bind "$work/scratch/puzzle" "$root/puzzle"

# The usual handful of devices; the machine's disks are none of a build's business.
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"

umask 022
# SYSTEMD_OFFLINE: systemctl then knows that there is nobody to talk to, and edits files only.
# SOURCE_DATE_EPOCH: useradd and others then write the same date into their files each time.
exec chroot "$root" /usr/bin/env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    SYSTEMD_OFFLINE=1 SOURCE_DATE_EPOCH="$epoch" \
    /bin/sh -c 'cd /puzzle && exec ./build.sh' </dev/null
