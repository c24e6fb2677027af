#!/bin/sh
# A file that is read later wins, and the computing centre keeps its own.
echo 'fs.inotify.max_user_watches = 4096' | sudo tee /etc/sysctl.d/70-post-room.conf >/dev/null
sudo sysctl --quiet --system
sudo systemctl reset-failed post-room
sudo systemctl start post-room
