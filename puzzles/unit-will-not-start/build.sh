#!/bin/sh
# The scale, its service, and the nephew's drop-in.
set -eu

useradd --system --no-create-home --shell /usr/sbin/nologin hive
install -D -m 0755 files/hive-scale /usr/local/lib/apiary/hive-scale
install -m 0644 files/hive-scale.service /etc/systemd/system/
install -D -m 0644 files/hardening.conf /etc/systemd/system/hive-scale.service.d/10-hardening.conf
install -d -m 0755 -o hive -g hive /srv/apiary
echo '2023-09-29 18:02:11 hive 3: 41.27 kg' >/srv/apiary/weights.log
chown hive:hive /srv/apiary/weights.log
systemctl enable hive-scale.service
