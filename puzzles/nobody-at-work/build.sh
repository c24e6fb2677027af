#!/bin/sh
# Ovens, a watchman of its own group, and /proc as somebody wanted it.
set -eu

useradd --system --user-group --no-create-home --shell /usr/sbin/nologin watchman
useradd --system --no-create-home --shell /usr/sbin/nologin baker
install -D -m 0755 files/oven /usr/local/lib/bakery/oven
install -m 0755 files/ovens files/watchman /usr/local/lib/bakery/
install -m 0644 files/ovens.service files/watchman.service /etc/systemd/system/
systemctl enable ovens.service watchman.service
cat files/fstab.line >>/etc/fstab
