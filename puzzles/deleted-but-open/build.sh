#!/bin/sh
# The gauge, the shipping and the RAM disk between them.
set -eu

install -D -m 0755 files/gauge /usr/local/lib/tide/gauge
install -D -m 0755 files/ship /usr/local/lib/tide/ship
install -D -m 0755 files/uplink /usr/local/lib/tide/uplink
install -m 0644 files/run-tide.mount files/tide-gauge.service files/tide-ship.service \
    /etc/systemd/system/
systemctl enable tide-gauge.service tide-ship.service
