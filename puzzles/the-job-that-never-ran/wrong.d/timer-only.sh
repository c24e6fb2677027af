#!/bin/sh
# refused by: copied
# The timer fires every five seconds, and what it starts fails every five seconds.
sudo sed -i '/^OnUnitActiveSec=/i OnBootSec=5s' /etc/systemd/system/orders-copy.timer
sudo systemctl daemon-reload
sudo systemctl restart orders-copy.timer
