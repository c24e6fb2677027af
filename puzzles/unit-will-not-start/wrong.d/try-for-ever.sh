#!/bin/sh
# refused by: records
# The limit was not the cause: now it fails all day long.
sudo sed -i 's/^StartLimitBurst=.*/StartLimitBurst=100000/; s/^Restart=.*/Restart=always/' \
    /etc/systemd/system/hive-scale.service
sudo systemctl daemon-reload
sudo systemctl reset-failed hive-scale
sudo systemctl start hive-scale
sleep 1
