#!/bin/sh
# A beginning for the timer, and the percent signs doubled, so that date gets them.
sudo sed -i '/^OnUnitActiveSec=/i OnBootSec=5s' /etc/systemd/system/orders-copy.timer
sudo sed -i '/^ExecStart=/s/%/%%/g' /etc/systemd/system/orders-copy.service
sudo systemctl daemon-reload
sudo systemctl restart orders-copy.timer
