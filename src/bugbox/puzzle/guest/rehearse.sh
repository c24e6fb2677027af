#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rehearse.sh: a build.sh of ours, for a build machine that stands by. What it uses is used by most
# puzzles; an emulated machine does it faster the second time. All that it makes is thrown away.
set -eu
useradd --system --shell /usr/sbin/nologin rehearsal
install -D -m 0644 -o rehearsal /etc/hostname /srv/rehearsal/data
mkdir -p /srv/rehearsal/folder
cp -a /srv/rehearsal/data /srv/rehearsal/folder
printf '%s\n' one two | sed 's/one/three/' >/srv/rehearsal/lines
setfacl -m u:rehearsal:r-- /srv/rehearsal/lines
chmod 0600 /srv/rehearsal/lines
chown -R rehearsal: /srv/rehearsal/folder
ln -s data /srv/rehearsal/link
rm -r /etc/skel
printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
    >/etc/systemd/system/rehearsal.service
systemctl enable rehearsal.service
