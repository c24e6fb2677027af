#!/bin/sh
# refused by: watched
# Another limit of the same family: how many instances a user may have, not how many watches.
sudo sysctl --quiet fs.inotify.max_user_instances=1024
sudo systemctl reset-failed post-room
sudo systemctl start post-room
sleep 2
