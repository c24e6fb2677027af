#!/bin/sh
# The watchman's own group may look; everybody else goes on seeing nothing.
sudo sed -i 's/hidepid=invisible/&,gid=watchman/' /etc/fstab
sudo mount -o "remount,hidepid=invisible,gid=$(getent group watchman | cut -d: -f3)" /proc
sleep 3
