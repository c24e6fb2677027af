#!/bin/sh
# Runs once, as root, in the base image's filesystem, while no service runs. What it changes is the
# puzzle. The folder files/ of the puzzle lies at /puzzle/files.
set -eu

install -d /usr/share/inbox
for month in april may june; do
    printf 'The report of %s: all quiet.\n' "$month" >"/usr/share/inbox/$month.txt"
done
install -m 0644 files/srv-inbox.mount files/inbox.service /etc/systemd/system/
systemctl enable srv-inbox.mount inbox.service
