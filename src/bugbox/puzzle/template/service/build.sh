#!/bin/sh
# Runs once, as root, in the base image's filesystem, while no service runs. What it changes is the
# puzzle. The folder files/ of the puzzle lies at /puzzle/files.
set -eu

useradd --system --no-create-home --shell /usr/sbin/nologin tower
install -m 0755 files/tower /usr/local/bin/tower
install -m 0644 files/tower.service /etc/systemd/system/
install -d /etc/systemd/system/tower.service.d
# The fault: nobody is called that.
printf '[Service]\nUser=towr\n' >/etc/systemd/system/tower.service.d/user.conf
systemctl enable tower.service
