#!/bin/sh
# Or go on listening to the display: then its end is heard, and it is closed like any guest's.
printf '[Service]\nLimitNOFILE=512\n' >/tmp/limit.conf
sudo install -D -m 0644 /tmp/limit.conf /etc/systemd/system/cloakroom.service.d/limit.conf
sudo sed -i '/^    syswrite \$guest, .guests/{n;d}' /usr/local/lib/theatre/cloakroom
sudo systemctl daemon-reload
sudo systemctl restart cloakroom
sleep 2
