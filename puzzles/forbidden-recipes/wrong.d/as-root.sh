#!/bin/sh
# refused by: shown
# The rule is the server's own, and holds for root.
sudo sed -i '/^User=/d' /etc/systemd/system/larder.service
sudo systemctl daemon-reload
sudo systemctl restart larder
sleep 1
