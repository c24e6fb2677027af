#!/bin/sh
# refused by: watched
# Root may do anything, but the limit counts root's watches like anybody's.
sudo sed -i '/^User=/d' /etc/systemd/system/post-room.service
sudo systemctl daemon-reload
sudo systemctl reset-failed post-room
sudo systemctl start post-room
sleep 2
