#!/bin/sh
# The desk, the cleaner, and a spool with room for bytes and few inodes.
set -eu

install -D -m 0755 files/ferry-desk /usr/local/lib/ferry/ferry-desk
install -m 0755 files/ferry-tidy /usr/local/lib/ferry/ferry-tidy
install -m 0644 files/ferry-desk.service files/ferry-tidy.service files/var-spool-ferry.mount \
    /etc/systemd/system/
systemctl enable ferry-desk.service ferry-tidy.service

# Somebody made the disk for a few big files: an inode for every 64 KiB. What would differ from one
# build to the next is given. break.sh fills it.
mkdir -p /var/spool/ferry /var/lib/ferry
uuid=8f3c2d4e-5a6b-4c7d-8e9f-0a1b2c3d4e5f
truncate -s 24M /var/lib/ferry/spool.img
E2FSPROGS_FAKE_TIME=1695900000 mke2fs -q -t ext4 -N 384 -m 0 -O ^has_journal -L ferry -U $uuid \
    -E hash_seed=$uuid,lazy_itable_init=0 /var/lib/ferry/spool.img
