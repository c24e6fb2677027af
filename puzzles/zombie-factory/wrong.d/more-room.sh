#!/bin/sh
# refused by: limit
# Ten times the room is full ten times later.
sudo sed -i 's/^TasksMax=.*/TasksMax=600/' /etc/systemd/system/print-shop.service
sudo systemctl daemon-reload
sudo systemctl restart print-shop
sleep 1
