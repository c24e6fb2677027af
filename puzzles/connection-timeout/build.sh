#!/bin/sh
# The page, the lamp, and a firewall that knows one cable too few.
set -eu

install -D -m 0755 files/answer /usr/local/lib/lighthouse/answer
install -m 0644 files/wind@.service files/wind.socket files/lamp@.service files/lamp.socket \
    /etc/systemd/system/
install -m 0755 files/nftables.conf /etc/nftables.conf
systemctl enable wind.socket lamp.socket nftables.service
