#!/bin/sh
# refused by: copied
# The service would work now. Nobody starts it.
sudo sed -i '/^ExecStart=/s/%/%%/g' /etc/systemd/system/orders-copy.service
sudo systemctl daemon-reload
sudo systemctl restart orders-copy.timer
