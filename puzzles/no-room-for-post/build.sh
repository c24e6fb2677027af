#!/bin/sh
# The post room with its pigeonholes, and the computing centre's idea of a lean machine.
set -eu

useradd --system --no-create-home --shell /usr/sbin/nologin postmaster
install -D -m 0755 files/post-room /usr/local/lib/post-room/post-room
install -m 0644 files/post-room.service /etc/systemd/system/
install -d -m 0755 -o postmaster -g postmaster /srv/post
install -d -m 0755 /srv/post/holes
for n in $(seq -w 1 240); do
    install -d -m 1777 "/srv/post/holes/$n"
done
echo 'Monday 17:58 hole 112: a parcel slip, stamped' >/srv/post/ledger
chown postmaster:postmaster /srv/post/ledger
# Under the kernel's own number for such files: read after what the system brings.
install -m 0644 files/lean.conf /etc/sysctl.d/60-lean.conf
systemctl enable post-room.service
