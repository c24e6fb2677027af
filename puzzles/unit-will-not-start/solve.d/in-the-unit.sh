#!/bin/sh
# The same line in the unit itself.
sudo sed -i '/^User=/a ReadWritePaths=/srv/apiary' /etc/systemd/system/hive-scale.service
sudo systemctl daemon-reload
sudo systemctl reset-failed hive-scale
sudo systemctl start hive-scale
