#!/bin/sh
# Runs once, as root, in the base image's filesystem, while no service runs. What it changes is the
# puzzle. The folder files/ of the puzzle lies at /puzzle/files.
set -eu

install -m 0755 files/ledger /usr/local/bin/ledger
install -m 0644 files/ledger.socket files/ledger@.service /etc/systemd/system/
systemctl enable ledger.socket
# The fault: the ledger has moved to 127.0.0.2, and its name has not.
printf '127.0.0.9 ledger.example\n' >>/etc/hosts
