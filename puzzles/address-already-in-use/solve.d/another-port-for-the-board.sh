#!/bin/sh
# Let the board say goodbye elsewhere.
sudo mkdir -p /etc/systemd/system/hallboard.socket.d
printf '[Socket]\nListenStream=\nListenStream=8081\n' |
    sudo tee /etc/systemd/system/hallboard.socket.d/port.conf >/dev/null
sudo systemctl daemon-reload
sudo systemctl stop hallboard.socket
sudo systemctl start hallboard.socket
sudo systemctl reset-failed menu
sudo systemctl start menu
