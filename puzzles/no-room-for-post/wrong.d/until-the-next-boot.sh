#!/bin/sh
# refused by: lasts
# The right number, and nowhere written down.
sudo sysctl --quiet fs.inotify.max_user_watches=8192
sudo systemctl reset-failed post-room
sudo systemctl start post-room
