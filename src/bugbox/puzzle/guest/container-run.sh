#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# container-run.sh WORK EPOCH: run the puzzle's build.sh in a container, then list what there is.
#
# The list goes to WORK/after. build.sh runs with what an engine gives any container: CAP_SYS_ADMIN
# is ours alone.
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
work=$1 epoch=$2

umask 022
code=0
# The same environment as in run.sh.
setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- /usr/bin/env -i \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    SYSTEMD_OFFLINE=1 SOURCE_DATE_EPOCH="$epoch" \
    /bin/sh -c 'cd /puzzle && exec ./build.sh' </dev/null 2>&1 || code=$?
# Whatever it has left running ends too: all but the container's first process and this shell.
kill -9 -1 2>/dev/null || true
[ "$code" = 0 ] || exit "$code"
find / -xdev -printf '%y %i %C@ %P\0' >"$work/after"
