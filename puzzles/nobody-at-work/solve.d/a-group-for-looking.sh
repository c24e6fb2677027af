#!/bin/sh
# A group made for it, which the service joins.
sudo groupadd --system lookers
sudo sed -i 's/hidepid=invisible/&,gid=lookers/' /etc/fstab
sudo mount -o "remount,hidepid=invisible,gid=$(getent group lookers | cut -d: -f3)" /proc
sudo mkdir -p /etc/systemd/system/watchman.service.d
printf '[Service]\nSupplementaryGroups=lookers\n' |
    sudo tee /etc/systemd/system/watchman.service.d/group.conf >/dev/null
sudo systemctl daemon-reload
sudo systemctl restart watchman
sleep 3
