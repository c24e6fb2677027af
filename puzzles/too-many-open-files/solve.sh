#!/bin/sh
# A service's limit stands in its unit; and the display's visits are closed.
sudo sed -i 's/^LimitNOFILE=.*/LimitNOFILE=1024/' /etc/systemd/system/cloakroom.service
sudo sed -i '/^    syswrite \$guest, .guests/{n;s/.*/    leave($guest);/}' /usr/local/lib/theatre/cloakroom
sudo systemctl daemon-reload
sudo systemctl restart cloakroom
sleep 2
