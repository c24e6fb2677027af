#!/bin/sh
# refused by: room
# Services have nothing to do with it.
sudo systemctl restart ferry-tidy ferry-desk
sleep 3
