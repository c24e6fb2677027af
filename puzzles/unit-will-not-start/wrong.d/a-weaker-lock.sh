#!/bin/sh
# refused by: hardened
# "full" leaves /srv writable, and /var with it.
sudo sed -i 's/^ProtectSystem=.*/ProtectSystem=full/' \
    /etc/systemd/system/hive-scale.service.d/10-hardening.conf
sudo systemctl daemon-reload
sudo systemctl reset-failed hive-scale
sudo systemctl start hive-scale
