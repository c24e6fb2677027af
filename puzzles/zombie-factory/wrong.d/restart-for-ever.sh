#!/bin/sh
# refused by: buried
# A new shop every four seconds: pages do come out.
sudo systemd-run --quiet --unit print-shop-again --on-active=1 --on-unit-active=4 \
    --timer-property=AccuracySec=100ms systemctl restart print-shop
sleep 6
