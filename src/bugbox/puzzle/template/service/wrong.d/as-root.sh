#!/bin/sh
# refused by: user
# Root always exists.
sudo rm /etc/systemd/system/tower.service.d/user.conf
sudo systemctl daemon-reload
sudo systemctl restart tower
sleep 3
