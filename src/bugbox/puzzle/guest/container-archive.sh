#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# container-archive.sh WORK EPOCH: write the layer's tar to stdout, as archive.sh does.
#
# WORK has two lists made by the host, each name followed by a NUL: whiteouts, empty files to be made,
# and members, all that the tar holds, in its order. WORK/lost gets what collect.sh tells of chattr.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 epoch=$2

if [ "${3:-}" != inside ]; then
    cd /
    while IFS= read -r -d '' path; do
        touch --reference="${path%/*}" "$work/time"
        : >"$path"
        touch --reference="$work/time" "${path%/*}"
    done <"$work/whiteouts"
    : >"$work/lost"
    # shellcheck disable=SC2185  # the list has the starting points
    while IFS= read -r line; do
        [[ $line =~ ^[-A-Za-z]{20,24}\ (\./.*)$ ]] || continue
        path=${BASH_REMATCH[1]} flags=${line%% *}
        flags=${flags//[-eIEVN]/}
        [ -n "$flags" ] || continue
        printf 'flags:%s\0%s\0' "$flags" "$path" >>"$work/lost"
        chattr -ia -- "$path"
    done < <(find -files0-from "$work/members" -maxdepth 0 \( -type d -o -type f \) -print0 |
        xargs -0r lsattr -d -- 2>/dev/null || true)
    # shellcheck disable=SC2185  # the list has the starting points
    find -files0-from "$work/members" -maxdepth 0 -newer "$work/start" -print0 |
        xargs -0r touch --no-dereference --date="@$epoch" --
    mkdir -p "$work/root"
    exec unshare --mount --pid --fork --kill-child=KILL -- /bin/bash "$0" "$work" "$epoch" inside
fi
# The tree without what is mounted in it; and nobody has a name: see archive.sh.
mount --bind / "$work/root"
mount --bind /dev/null /etc/passwd
mount --bind /dev/null /etc/group
exec tar --create --file=- --directory="$work/root" --null --no-recursion --files-from="$work/members" \
    --format=posix --sparse --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' \
    --xattrs --xattrs-include='*' --xattrs-exclude='trusted.overlay.*' --acls \
    --numeric-owner --warning=no-file-ignored
