#!/bin/sh
# More watches for each user, now and at each boot; then let systemd try again.
sudo sed -i 's/^\(fs.inotify.max_user_watches\) .*/\1 = 8192/' /etc/sysctl.d/60-lean.conf
sudo sysctl --quiet --load /etc/sysctl.d/60-lean.conf
sudo systemctl reset-failed post-room
sudo systemctl start post-room
