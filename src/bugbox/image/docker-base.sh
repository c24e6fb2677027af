#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docker-base.sh IMAGE WORK TAR: write the base image's tree as a tar for a container engine.
#
# Runs in a mount namespace of its own. Beside the base the tar has /puzzle, a policy-rc.d as for any
# build, and in /.bugbox what an engine overwrites: see container-prepare.sh.
set -euo pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
image=$1 work=$2 tar=$3

mkdir "$work/root" "$work/more"
mount -o loop,ro "$image" "$work/root"
cd "$work/more"
mkdir -p puzzle .bugbox/etc usr/sbin
for name in hosts hostname resolv.conf mtab; do
    if [ -e "$work/root/etc/$name" ] || [ -L "$work/root/etc/$name" ]; then
        cp -a "$work/root/etc/$name" ".bugbox/etc/$name"
    fi
done
touch .bugbox/root
touch --reference="$work/root" .bugbox/root
touch --reference="$work/root/etc" .bugbox/etc
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
tar --create --file="$tar" --format=posix --numeric-owner --xattrs --xattrs-include='*' --acls \
    --directory="$work/root" . --directory="$work/more" ./puzzle ./.bugbox ./usr/sbin/policy-rc.d
