#!/bin/sh
# refused by: buried
# The parent's end takes the dead away. Then it begins again.
sudo systemctl restart print-shop
sleep 1
