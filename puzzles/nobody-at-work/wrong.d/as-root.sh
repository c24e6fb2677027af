#!/bin/sh
# refused by: counted
# Root sees all, and may do all as well.
sudo sed -i '/^User=/d' /etc/systemd/system/watchman.service
sudo systemctl daemon-reload
sudo systemctl restart watchman
sleep 3
