#!/bin/sh
# refused by: lasts
# Once the service has run, the timer knows what to count from - until the next boot.
sudo sed -i '/^ExecStart=/s/%/%%/g' /etc/systemd/system/orders-copy.service
sudo systemctl daemon-reload
sudo systemctl start orders-copy.service
